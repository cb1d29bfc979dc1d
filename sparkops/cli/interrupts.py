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
    """The first (of SIGHUP where nohup or the command does not take it): finish what runs. The second: leave now.

    A thread hears them: Python's own handlers wait for the main one, which may be writing where nobody reads.
    """

    def hear() -> None:
        while heard := os.read(reader, 1):
            if heard[0] not in before:
                continue
            if stop.is_set():
                _say("left at once; the same command resumes")
                os._exit(130)
            stop.set()
            _say("stopping after the running steps; again to leave at once")

    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    listener = threading.Thread(target=hear, name="interrupts", daemon=True)
    listener.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(writer)
        listener.join()
        os.close(reader)


def _say(text: str) -> None:
    """To standard error past its buffer, in which the signal may have interrupted a write; not where it would wait."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"\n{text}\n".encode())
