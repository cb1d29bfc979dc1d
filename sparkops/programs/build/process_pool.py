"""Processes that work side by side on numbered tasks, one at a time each, on all cores. They die with their parent."""

import contextlib
import gc
import json
import os
import selectors
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from sparkops.core.messages import answer
from sparkops.worker.calls import Refused
from sparkops.worker.system.privileges import die_with

Hear = Callable[[int], None]
"""Called with bytes done since the last time."""


class Crew:
    """`do(task, hear)` runs in one of the processes and returns what JSON can carry; it may raise Refused and OSError.

    Forked when it is made: from a process without other threads, and all that `do` needs has to be there by then.
    """

    def __init__(self, size: int, do: Callable[[int, Hear], Any]) -> None:
        self._workers: dict[int, tuple[int, Any]] = {}
        gc.collect()
        gc.freeze()
        for _ in range(size):
            self._start(do)

    def _start(self, do: Callable[[int, Hear], Any]) -> None:
        tasks, orders = os.pipe()
        reading, answers = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with(parent)
                gc.disable()
                for earlier, (order, _) in self._workers.items():
                    _close(order, earlier)
                _close(orders, reading)
                _serve(tasks, answers, do)
            finally:
                os._exit(0)
        _close(tasks, answers)
        self._workers[reading] = (orders, pid)

    def run(
        self, take: Callable[[], int | None], done: Callable[[int, Any], None], hear: Hear, check: Callable[[], None]
    ) -> None:
        """Give out what `take` yields (None: nothing for now) until nobody is at work; `done` hears each result."""
        with selectors.DefaultSelector() as selector:
            idle = list(self._workers)
            busy: dict[int, bytes] = {}
            for reading in idle:
                selector.register(reading, selectors.EVENT_READ)
            while True:
                while idle and (task := take()) is not None:
                    reading = idle.pop()
                    os.write(self._workers[reading][0], b"%d\n" % task)
                    busy[reading] = b""
                if not busy:
                    return
                for key, _ in selector.select(0.2):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        raise Refused("a working process of the build ended early", hint="run apply again to resume")
                    *lines, busy[key.fd] = (busy[key.fd] + data).split(b"\n")
                    for line in lines:
                        if _heard(json.loads(line), done, hear):
                            del busy[key.fd]
                            idle.append(key.fd)
                            break
                check()

    def close(self) -> None:
        """End them all, whatever they are at."""
        for reading, (orders, pid) in self._workers.items():
            _close(orders, reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._workers.clear()
        gc.unfreeze()


def _close(*handles: int) -> None:
    for handle in handles:
        os.close(handle)


def _heard(message: dict[str, Any], done: Callable[[int, Any], None], hear: Hear) -> bool:
    """True where the sender has nothing more to do."""
    if "bytes" in message:
        hear(message["bytes"])
        return False
    if "error" in message:
        raise Refused.from_json(message["error"])
    done(message["task"], message["result"])
    return True


def _serve(tasks: int, answers: int, do: Callable[[int, Hear], Any]) -> None:
    def say(**message: Any) -> None:
        os.write(answers, json.dumps(message).encode() + b"\n")

    with os.fdopen(tasks, encoding="ascii") as lines:
        while line := lines.readline():
            number = int(line)
            say(task=number, **answer(partial(do, number, lambda amount: say(bytes=amount))))
