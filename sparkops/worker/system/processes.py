"""Running the node's own programs: argument lists, a time-out, no shell.

subprocess is imported by the first program that runs. Together with `traceback` in `core/messages` and `claims` in
`dispatch`, which most checks do not need either, it is a tenth of the CPU time of a worker that observes ten
resources (105 ms instead of 117 ms, of 200 alternating runs), and that of a check of 50 nodes on the lab's two cores.
"""

from sparkops.worker.calls import Refused, Unknown

TAIL = 4000
"""Characters of a program's output that an error carries."""


def ask(argv: list[str], timeout: float = 20.0) -> tuple[int, str, str]:
    """Status, standard output and error of a program that only looks. Raises Unknown when it hangs or is missing."""
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unknown.of("program-missing", program=argv[0]) from None
    except subprocess.TimeoutExpired:
        raise Unknown.of("program-timeout", program=" ".join(argv[:3]), seconds=timeout) from None
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def run(argv: list[str], timeout: float = 120.0, data: bytes | None = None) -> str:
    """Standard output of a program that acts. Raises Refused with its last words when it fails or hangs."""
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, input=data or b"")
    except FileNotFoundError:
        raise Refused.of("program-missing", program=argv[0]) from None
    except subprocess.TimeoutExpired:
        raise Refused.of("program-timeout", program=" ".join(argv[:3]), seconds=timeout) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise failed(argv, done.returncode, said)
    return done.stdout.decode(errors="replace")


def failed(argv: list[str], status: int, output: str) -> Refused:
    """The error of a program that ended with a status other than 0."""
    lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
    return Refused.of(
        "program-failed", detail=output[-TAIL:], program=" ".join(argv[:3]), status=status, text=lines[-1]
    )
