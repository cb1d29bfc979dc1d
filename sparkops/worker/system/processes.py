"""Running the node's own programs: argument lists, a time-out, no shell.

subprocess is imported by the first program that runs. Together with `traceback` in `core/messages` and `claims` in
`dispatch`, which most checks do not need either, it is a tenth of the CPU time of a worker that observes ten
resources (105 ms instead of 117 ms, of 200 alternating runs), and that of a check of 50 nodes on the lab's two cores.
"""

import contextlib
import os
from collections.abc import Iterator
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
        with ended(argv, timeout) as (status, out, err):
            return status, _text(out), _text(err)
    except Refused as error:
        raise Unknown(error.id, error.values) from None


def output(argv: list[str], timeout: float = 20.0) -> str:
    """Standard output of a program that only looks and has to succeed. Raises Unknown."""
    status, out, err = ask(argv, timeout)
    if status != 0:
        raise Unknown.of("program-failed", program=argv[0], status=status, text=err.strip()[-200:])
    return out


def run(argv: list[str], timeout: float = 120.0) -> str:
    """Standard output of a program that acts. Raises Refused with its last words when it fails or hangs."""
    with ended(argv, timeout) as (status, out, err):
        said, wrong = _text(out), _text(err)
    if status != 0:
        raise failed(argv, status, (wrong or said).strip())
    return said


@contextlib.contextmanager
def ended(argv: list[str], timeout: float, *, together: bool = False) -> Iterator[tuple[int, BinaryIO, BinaryIO]]:
    """Status, output and error output (`together` in the first) of a program; one that hangs is ended with all that
    it started. Raises Refused.

    Its output goes to files without names: a process that it leaves behind keeps no pipe open that is waited for.
    """
    import subprocess

    from sparkops.core import process_group

    with _nameless() as out, _nameless() as err:
        child = started(argv, stdout=out, stderr=out if together else err)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            process_group.end(child, PATIENCE)
            raise Refused.of("program-timeout", program=" ".join(argv[:3]), seconds=timeout) from None
        for each in (out, err):
            each.seek(0)
        yield child.returncode, out, err


def _text(file: BinaryIO) -> str:
    return file.read().decode(errors="replace")


def started(argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    """A program, begun in a session of its own; nothing on its standard input. Raises Refused."""
    import subprocess

    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/", **options)
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
