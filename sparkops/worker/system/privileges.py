"""A piece of work in a child process with the rights of a user: what parses input from outside must not be root.

The child dies with its parent. It reports mappings through a pipe; the parent trusts them no more than it trusts that
user.
"""

import contextlib
import ctypes
import grp
import json
import os
import pwd
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

from sparkops.core.messages import answer
from sparkops.programs.protocol import Output
from sparkops.programs.users import find as user
from sparkops.worker.calls import Refused

__all__ = ["Report", "Said", "Say", "die_with", "run", "user"]

Report = Callable[[dict[str, Any]], None]
Say = Report
_PR_SET_PDEATHSIG = 1


class Said(Output):
    """A program's output on top of `say`, for work that is forked."""

    def __init__(self, say: Report, check: Callable[[], None]) -> None:
        super().__init__(-1)
        self._say, self._check = say, check

    def send(self, message: Mapping[str, Any]) -> None:
        self._say(dict(message))

    def check(self) -> None:
        self._check()


def run(who: pwd.struct_passwd, work: Callable[[Report], dict[str, Any]], report: Report) -> dict[str, Any]:
    """`work(report)` in a child as `who`; its result. Raises Refused with the child's reason."""
    if os.getuid() not in (0, who.pw_uid):
        raise Refused(
            f"the node's user can't act as {who.pw_name}", hint="set `connection.become`, or leave `owner` undeclared"
        )
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(who, work, writing, parent)
    os.close(writing)
    end: dict[str, Any] | None = None
    with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            message = _parsed(line)
            if "result" in message or "error" in message:
                end = message
            else:
                report(message)
    _, status = os.waitpid(pid, 0)
    if end is None:
        raise Refused(f"the working process ended early ({_ending(status)})", hint="run apply again to resume")
    if "error" in end:
        raise Refused.from_json(end["error"])
    return dict(end["result"])


def _parsed(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _ending(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.waitstatus_to_exitcode(status)}"


def _child(who: pwd.struct_passwd, work: Callable[[Report], dict[str, Any]], writing: int, parent: int) -> None:
    saying = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with saying:
            while data:
                data = data[os.write(writing, data) :]

    def made() -> dict[str, Any]:
        _become(who, parent)
        return work(say)

    end = answer(made)
    with contextlib.suppress(OSError):
        say(end)
    os._exit(0)


def _become(who: pwd.struct_passwd, parent: int) -> None:
    if os.getuid() == 0 and who.pw_uid != 0:
        groups = [each.gr_gid for each in grp.getgrall() if who.pw_name in each.gr_mem]
        os.setgroups([who.pw_gid, *groups])
        os.setresgid(who.pw_gid, who.pw_gid, who.pw_gid)
        os.setresuid(who.pw_uid, who.pw_uid, who.pw_uid)
    os.environ["HOME"] = who.pw_dir
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    die_with(parent)


def die_with(parent: int) -> None:
    """This process ends when its parent, the process `parent`, does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
