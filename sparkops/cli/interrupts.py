"""Ctrl-C, SIGTERM and a closed terminal while something acts on nodes: the first stops in order, the second leaves."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Generator


@contextlib.contextmanager
def interrupts(stop: threading.Event) -> Generator[None, None, None]:
    """The first (of SIGHUP where nohup or the command does not take it): finish what runs. The second: leave now."""

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            _say("left at once; the same command resumes")
            os._exit(130)
        stop.set()
        _say("stopping after the running steps; again to leave at once")

    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """To standard error past its buffer, in which the signal may have interrupted a write; not where it would wait."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"\n{text}\n".encode())
