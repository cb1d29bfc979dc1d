"""Running the node's own programs: argument lists, a time-out, no shell.

subprocess is imported by the first program that runs. Together with `traceback` in `os_errors` and `claims` in
`dispatch`, which most checks do not need either, it is a tenth of the CPU time of a worker that observes ten
resources (105 ms instead of 117 ms, of 200 alternating runs), and that of a check of 50 nodes on the lab's two cores.
"""

from sparkops.worker.calls import Refused, Unknown


def ask(argv: list[str], timeout: float = 20.0) -> tuple[int, str, str]:
    """Status, standard output and error of a program that only looks. Raises Unknown when it hangs or is missing."""
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unknown(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unknown(f"{' '.join(argv[:3])} did not answer within {timeout:g} s") from None
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def run(argv: list[str], timeout: float = 120.0, data: bytes | None = None) -> str:
    """Standard output of a program that acts. Raises Refused with its last words when it fails or hangs."""
    import subprocess

    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, input=data or b"")
    except FileNotFoundError:
        raise Refused(f"{argv[0]} is not installed on the node") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"{' '.join(argv[:3])} did not end within {timeout:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        last = said.splitlines()[-1] if said else "it said nothing"
        raise Refused(f"{' '.join(argv[:3])} ended with {done.returncode}: {last}", detail=said[-4000:])
    return done.stdout.decode(errors="replace")
