"""How a program of this folder is spoken to: a spec in, JSON lines out.

Standard input holds one line, the spec. Standard output gets a line per message: `{"progress": …}`, `{"notice":
{id, args}}`, `{"record": …}` (a fact that the caller keeps, such as a proven hash), and as the last one `{"result": …}`
or `{"error": …}`. SIGTERM asks the program to stop between two atomic steps. A program knows neither worker nor
controller: it is run by `runner.run`, or by hand (`main("sparkops.programs.NAME.main")`) with a spec.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from importlib import import_module

from sparkops.core.messages import answer
from sparkops.programs.progress import Reporter

SPEC_PARENT = "$parent"
"""The key of the spec that holds the caller's process id: the program ends with that process."""
SPEC_RIGHTS = "$rights"
"""The key of the spec that holds the user, group and groups that the program takes before it does anything."""
_PR_SET_PDEATHSIG = 1


class Output(Reporter):
    """A program's way to its caller. Safe for several threads."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(lambda message: self.send({"progress": message}))
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def notice(self, id: str, /, **args: object) -> None:
        """Something that a person has to know, by its id in `knowledge/errors/`."""
        self.send({"notice": {"id": id, "args": args}})

    def record(self, value: object) -> None:
        """Something that the caller keeps beyond the program's end."""
        self.send({"record": value})

    def send(self, message: Mapping[str, object]) -> None:
        """One line. A caller that is gone ends the program."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


def main(module: str) -> None:
    """Run `work(spec, output)` of a module on the spec of standard input, answer, and end the process."""
    work = import_module(module).work  # with the caller's rights: the user need not be able to read the library
    descriptor = os.dup(1)
    os.dup2(2, 1)
    output = Output(descriptor)
    signal.signal(signal.SIGTERM, lambda *_: output.stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o022)
    spec = json.loads(sys.stdin.buffer.readline())
    _take_rights(spec.pop(SPEC_RIGHTS, None))
    end_with(spec.pop(SPEC_PARENT, os.getppid()))
    output.send(answer(lambda: work(spec, output)))
    os._exit(0)


def _take_rights(rights: tuple[int, int, list[int]] | None) -> None:
    """Give up root for good. Not by `subprocess`: the user need not be able to read the interpreter's files."""
    if rights is not None:
        user, group, groups = rights
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)


def end_with(parent: int) -> None:
    """This process ends when its parent, the process `parent`, does. Linux only; elsewhere it ends at its next line."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
