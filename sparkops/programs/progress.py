"""How far a phase of a program's work is, with the rate of the last seconds."""

import threading
import time
from typing import Protocol

RATE_OVER = 10.0
"""Seconds over which the shown rate is an average."""
RATE_FROM = 1 << 20
"""Bytes of a phase from which its rate tells something."""
INTERVAL = 0.2
"""Seconds between two reports."""


class Rate:
    """Bytes a second over the last RATE_OVER seconds."""

    def __init__(self) -> None:
        self._past: list[tuple[float, float]] = [(time.monotonic(), 0.0)]

    def at(self, done: float) -> float:
        """The rate, now that so many are done."""
        now = time.monotonic()
        self._past = [each for each in self._past if now - each[0] <= RATE_OVER] or self._past[-1:]
        since, before = self._past[0]
        if now - self._past[-1][0] >= INTERVAL:
            self._past.append((now, done))
        return max(0.0, done - before) / max(now - since, INTERVAL)


class Reporter(Protocol):
    """Who is told, and tells when to stop: `protocol.Output` is one."""

    def progress(
        self,
        text: str = "",
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        rate: float | None = None,
    ) -> None: ...

    def check(self) -> None:
        """Raise Refused `cancelled` once the work has to stop."""
        ...


class Tracker:
    """One phase of `total` bytes, reported under `text`. Safe for several threads."""

    def __init__(self, output: Reporter, text: str, total: int) -> None:
        self._output, self._text, self._total = output, text, total
        self._done = 0
        self._lock = threading.Lock()
        self._rate = Rate()
        self._told = time.monotonic()

    def add(self, amount: int, lost: int = 0) -> None:
        """So many bytes more, and so many that turned out worthless."""
        with self._lock:
            self._done += amount - lost
            now = time.monotonic()
            if now - self._told < INTERVAL and self._done < self._total:
                return
            self._told = now
            rate = self._rate.at(self._done) if self._total >= RATE_FROM else None
            self._output.progress(self._text, self._done, self._total, rate=rate)

    def read(self, amount: int) -> None:
        """`add`, and stop where the work has to."""
        self._output.check()
        self.add(amount)
