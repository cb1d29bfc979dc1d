"""Ctrl-C and SIGTERM during what acts on nodes: the first one stops in an orderly way, the second one leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator


@contextlib.contextmanager
def interrupts(stop: threading.Event) -> Generator[None, None, None]:
    """First Ctrl-C (or SIGTERM): finish what runs. Second: leave now."""

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            sys.stderr.write("\nleft at once; the same command resumes\n")
            sys.stderr.flush()
            os._exit(130)
        stop.set()
        sys.stderr.write("\nstopping after the running steps; again to leave at once\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
