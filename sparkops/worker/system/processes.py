"""Running the node's own programs: argument lists, a time-out, no shell.

subprocess is imported by the first program that runs. Together with `traceback` in `core/messages` and `claims` in
`dispatch`, which most checks do not need either, it is a tenth of the CPU time of a worker that observes ten
resources (105 ms instead of 117 ms, of 200 alternating runs), and that of a check of 50 nodes on the lab's two cores.
"""

import os
from typing import TYPE_CHECKING, Any, BinaryIO

from sparkops.worker.calls import Refused, Unknown

if TYPE_CHECKING:
    import subprocess

TAIL = 4000
"""Characters of a program's output that an error carries."""
PATIENCE = 1.0
"""Seconds from SIGTERM to SIGKILL."""


def ask(argv: list[str], timeout: float = 20.0) -> tuple[int, str, str]:
    """Status, standard output and error of a program that only looks. Raises Unknown when it hangs or is missing."""
    try:
        status, out, err = _ended(argv, timeout)
    except Refused as error:
        raise Unknown(error.id, error.values) from None
    return status, out.decode(errors="replace"), err.decode(errors="replace")


def output(argv: list[str], timeout: float = 20.0) -> str:
    """Standard output of a program that only looks and has to succeed. Raises Unknown."""
    status, out, err = ask(argv, timeout)
    if status != 0:
        raise Unknown.of("program-failed", program=argv[0], status=status, text=err.strip()[-200:])
    return out


def run(argv: list[str], timeout: float = 120.0, data: bytes = b"") -> str:
    """Standard output of a program that acts. Raises Refused with its last words when it fails or hangs."""
    status, out, err = _ended(argv, timeout, data)
    if status != 0:
        raise failed(argv, status, (err or out).decode(errors="replace").strip())
    return out.decode(errors="replace")


def _ended(argv: list[str], timeout: float, data: bytes = b"") -> tuple[int, bytes, bytes]:
    """Status, output and error output of a program; one that hangs is ended with all that it started.

    Its output goes to files without names: a process that it leaves behind keeps no pipe open that is waited for.
    """
    import subprocess

    from sparkops.core import process_group

    with _nameless() as given, _nameless() as out, _nameless() as err:
        given.write(data)
        given.seek(0)
        child = started(argv, stdin=given, stdout=out, stderr=err)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            process_group.end(child, PATIENCE)
            raise Refused.of("program-timeout", program=" ".join(argv[:3]), seconds=timeout) from None
        for each in (out, err):
            each.seek(0)
        return child.returncode, out.read(), err.read()


def started(argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """A program, begun in a session of its own; nothing on its standard input. Raises Refused."""
    import subprocess

    try:
        return subprocess.Popen(argv, **{"stdin": subprocess.DEVNULL, "start_new_session": True, **options})
    except FileNotFoundError:
        raise Refused.of("program-missing", program=argv[0]) from None
    except PermissionError:
        raise Refused.of("program-not-executable", program=argv[0]) from None


def _nameless() -> BinaryIO:
    return open(os.memfd_create("sparkops-program"), "w+b")


def failed(argv: list[str], status: int, output: str) -> Refused:
    """The error of a program that ended with a status other than 0."""
    lines = [line for line in output.splitlines() if line.strip()] or ["no output"]
    return Refused.of(
        "program-failed", detail=output[-TAIL:], program=" ".join(argv[:3]), status=status, text=lines[-1]
    )
