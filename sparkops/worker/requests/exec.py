"""Running a program for as long as somebody listens: what it says is streamed, and it ends with its call.

Each chunk that is sent begins with one byte: 1 for standard output, 2 for error output.
"""

import os
import selectors
import subprocess
import time

from sparkops.core import process_group
from sparkops.core.request_messages import JournalRequest, ProgramRequest
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import processes

POLL = 0.2
CHUNK = 512 << 10
"""Bytes that are read and sent at once; a pipe holds as much."""
PATIENCE = 3.0
"""Seconds from SIGTERM to SIGKILL."""


def run(call: Call, argv: list[str], timeout: float | None = None) -> dict[str, object]:
    """How it ended: `status` (128 + the signal's number, as in a shell) and `timed_out`. Raises Refused."""
    child = processes.started(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pipesize=CHUNK)
    over = False
    try:
        over = _pump(call, child, None if timeout is None else time.monotonic() + timeout)
    finally:
        if child.poll() is None:
            process_group.end(child, PATIENCE)
    status = child.returncode
    return {"status": 128 - status if status < 0 else status, "timed_out": over}


def _pump(call: Call, child: "subprocess.Popen[bytes]", deadline: float | None) -> bool:
    """Send what it says until it has ended; True where its time was over first.

    A process that it left behind may keep the pipes open; what that one says is not waited for.
    """
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ, b"\1")
        ready.register(child.stderr, selectors.EVENT_READ, b"\2")
        while True:
            ended = child.poll() is not None
            found = ready.select(0 if ended else POLL)
            if ended and not found:
                return False
            for key, _ in found:
                if data := os.read(key.fd, CHUNK):
                    call.send(key.data + data)
                else:
                    ready.unregister(key.fileobj)
            if call.stopping.is_set() or call.session_over.is_set():
                raise Refused.of("exec-cancelled", type="cancelled")
            if deadline is not None and time.monotonic() > deadline:
                return True


def program(call: Call, args: ProgramRequest) -> dict[str, object]:
    return run(call, args["argv"], args["timeout"])


def journal(call: Call, args: JournalRequest) -> dict[str, object]:
    """The call `exec.journal`: entries as JSON lines."""
    after = args.get("after")
    where = [f"--after-cursor={after}", "--no-tail"] if after else [f"--lines={int(args['lines'])}"]
    argv = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json", *where]
    argv += ["--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER"]
    return run(call, [*argv, *(["--follow"] if args.get("follow") else []), f"--unit={args['unit']}"])


CALLS = {"program": program, "journal": journal}
