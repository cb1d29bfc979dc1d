"""How far a program's work is, with the rate of the last seconds, who is told, and who hears a program."""

import threading
import time
from collections.abc import Callable, Mapping

from sparkops.core.messages import Fields, Refused

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


class Reporter:
    """Work that tells how far it is and may be asked to stop: a program, a node's job, a command.

    `tell` gets the fields of `messages.Progress`.
    """

    def __init__(self, tell: Callable[[dict[str, object]], None], stopping: threading.Event | None = None) -> None:
        self.stopping = stopping or threading.Event()
        self._tell, self._last = tell, ("", 0.0)

    def progress(
        self,
        text: str = "",
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        rate: float | None = None,
        **more: object,
    ) -> None:
        """How far the work is; under the same text it is told at most five times a second."""
        now = time.monotonic()
        if text == self._last[0] and now - self._last[1] < INTERVAL and done != total:
            return
        self._last = (text, now)
        more = {key: value for key, value in {"unit": unit or None, "rate": rate, **more}.items() if value is not None}
        self._tell({"text": text, "done": done, "total": total, **more})

    def check(self) -> None:
        """Raise Refused `cancelled` once it was asked to stop; called between atomic steps."""
        if self.stopping.is_set():
            raise Refused.of("cancelled", type="cancelled")


class Listener:
    """Who hears a program: its progress goes on to `job`, if there is one; notices and records are not heeded."""

    job: Reporter | None = None

    def __init__(self, job: Reporter | None = None) -> None:
        self.job = job

    def progress(self, message: Fields) -> None:
        if self.job is not None:
            text, unit = str(message.get("text") or ""), str(message.get("unit") or "")
            self.job.progress(text, message.get("done"), message.get("total"), unit, message.get("rate"))

    def notice(self, id: str, args: Mapping[str, object]) -> None: ...
    def record(self, value: object) -> None: ...

    def stopped(self) -> bool:
        return self.job is not None and self.job.stopping.is_set()


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
