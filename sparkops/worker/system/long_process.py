"""Running a program that acts and may take long: it ends properly even where the session does not live to see it.

Its output goes to a file without a name, not to a pipe, so that a session that goes away breaks no write of the
program's (a package manager killed in the middle leaves half-configured packages).
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping

from sparkops.core import process_group
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system.processes import TAIL, failed, started

POLL = 0.1
PATIENCE = 5.0
"""Seconds from SIGTERM to SIGKILL."""


def run(
    call: Call,
    argv: list[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    line: Callable[[str], None] = lambda text: None,
) -> str:
    """The output of a program, error output in it; `line` is given each line as it comes.

    Raises Refused with the last of the output when it fails or takes longer than `timeout` seconds (its process group
    is then ended), and Refused `cancelled` when the call is no longer wanted: the program goes on to its end.
    """
    with open(os.memfd_create("sparkops-run"), "w+b") as output:
        child = started(argv, stdout=output, stderr=output, env={**os.environ, **(env or {})})
        said = _follow(call, child, output.fileno(), argv, timeout, line)
    if child.returncode != 0:
        raise failed(argv, child.returncode, said)
    return said


def _follow(
    call: Call,
    child: "subprocess.Popen[bytes]",
    handle: int,
    argv: list[str],
    timeout: float,
    line: Callable[[str], None],
) -> str:
    deadline = time.monotonic() + timeout
    said = b""
    told = 0
    while True:
        ended = child.poll() is not None
        said += _new(handle, len(said))
        end = len(said) if ended else said.rfind(b"\n") + 1
        if end > told:
            for each in said[told:end].decode(errors="replace").splitlines():
                line(each)
            told = end
        text = said.decode(errors="replace")
        if ended:
            return text
        if call.stopping.is_set() or call.session_over.is_set():
            raise Refused.of("program-left-running", type="cancelled", detail=text[-TAIL:], program=_short(argv))
        if time.monotonic() > deadline:
            process_group.end(child, PATIENCE)
            raise Refused.of("program-timeout", detail=text[-TAIL:], program=_short(argv), seconds=timeout)
        time.sleep(POLL)


def _new(handle: int, start: int) -> bytes:
    parts = []
    while part := os.pread(handle, 1 << 16, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _short(argv: list[str]) -> str:
    return " ".join(argv[:3])
