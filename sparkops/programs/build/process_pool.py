"""Processes that work side by side on numbered tasks, one at a time each, on all cores. They die with their parent."""

import contextlib
import gc
import json
import os
import selectors
import signal
from collections.abc import Callable
from functools import partial

from sparkops.core.messages import Fields, Refused, answer
from sparkops.programs.protocol import end_with

OnProgress = Callable[[int], None]
"""Called with the bytes done since the last call."""


class ProcessPool:
    """`do(task, on_progress)` runs in one of the processes and returns what JSON can carry; it may raise.

    Forked when it is made: from a process without other threads, and all that `do` needs has to exist by then.
    """

    def __init__(self, size: int, do: Callable[[int, OnProgress], object]) -> None:
        self._processes: dict[int, tuple[int, int]] = {}
        """By the descriptor that its messages are read from: that for tasks, and its process id."""
        gc.collect()
        gc.freeze()
        for _ in range(size):
            self._start(do)

    def _start(self, do: Callable[[int, OnProgress], object]) -> None:
        tasks, writing_tasks = os.pipe()
        reading, messages = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                end_with(parent)
                gc.disable()
                for earlier, (descriptor, _) in self._processes.items():
                    _close(descriptor, earlier)
                _close(writing_tasks, reading)
                _serve(tasks, messages, do)
            finally:
                os._exit(0)
        _close(tasks, messages)
        self._processes[reading] = (writing_tasks, pid)

    def run(
        self,
        take: Callable[[], int | None],
        done: Callable[[int, object], None],
        on_progress: OnProgress,
        check: Callable[[], None],
    ) -> None:
        """Hand out what `take` yields (None: nothing for now) until no process is busy; `done` gets each result.

        Raises what a task or `check` raises, and Refused `program-ended` for a process that ended early.
        """
        with selectors.DefaultSelector() as selector:
            idle = list(self._processes)
            busy: dict[int, bytes] = {}
            for reading in idle:
                selector.register(reading, selectors.EVENT_READ)
            while True:
                while idle and (task := take()) is not None:
                    reading = idle.pop()
                    os.write(self._processes[reading][0], b"%d\n" % task)
                    busy[reading] = b""
                if not busy:
                    return
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        raise Refused.of("program-ended", program="a process of the build", ending="early")
                    *lines, busy[key.fd] = (busy[key.fd] + data).split(b"\n")
                    for line in lines:
                        if _is_end(json.loads(line), done, on_progress):
                            del busy[key.fd]
                            idle.append(key.fd)
                            break
                check()

    def close(self) -> None:
        """End all processes, whatever they do."""
        for reading, (tasks, pid) in self._processes.items():
            _close(tasks, reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._processes.clear()
        gc.unfreeze()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _is_end(message: Fields, done: Callable[[int, object], None], on_progress: OnProgress) -> bool:
    """Pass a message on; True where the task is finished."""
    if "progress" in message:
        on_progress(message["progress"]["done"])
        return False
    if "error" in message:
        raise Refused.from_json(message["error"])
    done(message["task"], message["result"])
    return True


def _serve(tasks: int, messages: int, do: Callable[[int, OnProgress], object]) -> None:
    def send(**message: object) -> None:
        os.write(messages, json.dumps(message).encode() + b"\n")

    with os.fdopen(tasks, encoding="ascii") as lines:
        while line := lines.readline():
            number = int(line)
            send(task=number, **answer(partial(do, number, lambda amount: send(progress={"done": amount}))))
