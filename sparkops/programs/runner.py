"""Runs a program of this folder as a user of this machine and follows its lines to the result.

The program is sent from memory and gets nothing but its spec and the open folders that it is handed: what parses input
from outside does not run as root. Its lines are trusted no more than that user is.
"""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from sparkops.core.messages import Refused
from sparkops.programs import bundle, protocol
from sparkops.programs.progress import Listener
from sparkops.programs.protocol import SPEC_PARENT, SPEC_RIGHTS

POLL = 0.2
"""Seconds between two looks whether the caller wants to stop."""
GRACE = 10.0
"""Seconds that a program has after SIGTERM before it is killed."""
KEPT = 4000
"""Bytes of standard error that go into the error of a program that ended without a result."""


def boot(name: str) -> str:
    """What `python -c` is given to run the program on its standard input, under a name that a process list shows."""
    return f"import sys;f=sys.stdin.buffer;exec(compile(f.read(int(f.readline())),{name!r},'exec'))"


def run(
    module: str,
    spec: Mapping[str, object],
    listener: Listener,
    *,
    user: pwd.struct_passwd | None = None,
    descriptors: Sequence[int] = (),
    grace: float = GRACE,
) -> Any:
    """The result of `module.work` on `spec`. `descriptors` stay open in it under the same numbers.

    `user` is whose rights it gets (None: the caller's), `grace` the seconds that it has to stop. Raises Refused with
    the program's reason, `cancelled` when the listener has `stopped`, `program-ended` when it ended without a word.
    """
    rights = _rights(user)
    process = _start(user, descriptors)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[bytes] = []
    drain = threading.Thread(target=_drain, args=(process.stderr, errors), daemon=True)
    drain.start()
    asked = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, listener.stopped, grace, asked), daemon=True)
    end: dict[str, object] | None = None
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            program = bundle.program(protocol.__name__, "main", module)
            stdin.write(b"%d\n" % len(program) + program)
            stdin.write(json.dumps({**spec, SPEC_PARENT: os.getpid(), SPEC_RIGHTS: rights}).encode() + b"\n")
        watch.start()
        for line in process.stdout:
            end = _take(_parsed(line), listener) or end
    finally:
        process.kill() if end is None else None
        status = _gone(process)
        process.stdout.close()
        drain.join(1.0)
    if end is None and asked.is_set():
        raise Refused.of("cancelled", type="cancelled")
    if end is None:
        detail = b"".join(errors)[-KEPT:].decode(errors="replace")
        ending = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise Refused.of("program-ended", program=module.split(".")[-2], ending=ending, detail=detail)
    if "error" in end:
        raise Refused.from_json(end["error"])
    return end["result"]


def _rights(user: pwd.struct_passwd | None) -> list[object] | None:
    """User, group and groups that the program takes; None where it keeps the caller's. Raises Refused."""
    if user is None or user.pw_uid == os.getuid():
        return None
    if os.getuid() != 0:
        raise Refused.of("cannot-act-as-user", user=user.pw_name)
    return [user.pw_uid, user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)]


def _start(user: pwd.struct_passwd | None, descriptors: Sequence[int]) -> "subprocess.Popen[bytes]":
    environment = dict(os.environ)
    if user is not None:
        environment["HOME"] = user.pw_dir
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", boot("sparkops-program")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=tuple(descriptors),
        cwd="/",
        env=environment,
    )


def _take(message: Mapping[str, object], listener: Listener) -> dict[str, object] | None:
    """Pass one line on; the last one (`result` or `error`) is returned."""
    if "result" in message or "error" in message:
        return dict(message)
    if isinstance(progress := message.get("progress"), Mapping):
        listener.progress(progress)
    elif isinstance(notice := message.get("notice"), Mapping):
        args = notice.get("args")
        listener.notice(str(notice.get("id", "")), args if isinstance(args, Mapping) else {})
    elif "record" in message:
        listener.record(message["record"])
    return None


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, Mapping) else {}


def _drain(stream: IO[bytes], kept: list[bytes]) -> None:
    with contextlib.suppress(ValueError), stream:
        while data := stream.read(4096):
            kept.append(data)
            del kept[:-4]


def _watch(process: "subprocess.Popen[bytes]", stop: Callable[[], bool], grace: float, asked: threading.Event) -> None:
    """Ask the program to stop when the caller does, and end it where it does not. One that is starting just ends."""
    while process.poll() is None and not stop():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL)
    if process.poll() is None:
        asked.set()
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()


def _gone(process: "subprocess.Popen[bytes]") -> int:
    """Its status once it has said its last word, or was killed; one that hangs all the same is killed too."""
    for _ in range(2):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(GRACE)
        process.kill()
    return -signal.SIGKILL
