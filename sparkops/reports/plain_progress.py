"""Listeners that need no terminal: some lines for logs and pipes, nothing for JSON. They do not need rich."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator

from sparkops.core import events
from sparkops.core.wording import duration, size
from sparkops.reports.formatting import beginning, safe
from sparkops.reports.text import OUTCOMES

INTERVAL = 15.0
"""Seconds between two lines about one step where there is no terminal."""
FOREVER = 100 * 86400.0
"""Seconds from which on the time that is left is not told."""


class Silent:
    """Shows nothing; passes events on to the others (the run's log)."""

    def __init__(self, others: tuple[events.Listener, ...] = ()) -> None:
        self._others = others

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def __call__(self, event: events.Event) -> None:
        for other in self._others:
            other(event)
        self.show(event)

    def show(self, event: events.Event) -> None:
        """What a person sees of an event; nothing here."""

    @contextlib.contextmanager
    def paused(self) -> Generator[None, None, None]:
        """While something else writes to the terminal."""
        yield


class Lines(Silent):
    """One line when a step takes long and when it ends, for logs and pipes. Silent nodes stand in the report."""

    def __init__(self, write: Callable[[str], None], others: tuple[events.Listener, ...] = ()) -> None:
        super().__init__(others)
        self._write = write
        self._shown_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def show(self, event: events.Event) -> None:
        text = self._line(event)
        if text:
            with self._lock:
                self._write(safe(text))

    def _line(self, event: events.Event) -> str:
        if isinstance(event, events.StepStarted):
            self._shown_at[event.id] = time.monotonic()
        if isinstance(event, events.StepProgress) and time.monotonic() - self._shown_at.get(event.id, 0.0) > INTERVAL:
            self._shown_at[event.id] = time.monotonic()
            return f"  {event.id}: {amount(event)}"
        if isinstance(event, events.Notice):
            return f"i {event.message.text}"
        if isinstance(event, events.StepFinished) and event.outcome != "not-attempted":
            why = f": {beginning(event.reason.text)}" if event.reason else ""
            return f"{OUTCOMES[event.outcome][0]} {event.id} ({event.seconds:.1f} s){why}"
        return ""


def amount(event: events.StepProgress, rate: float = 0.0) -> str:
    """Progress in words: `1.2 of 71.0 GB, 480 MB/s, 2 min 25 s left, shard 3 of 14`.

    `rate` is what was seen here, for work that does not tell its own.
    """
    words = []
    rate = rate if event.rate is None else event.rate
    if event.done is not None and event.unit == "bytes":
        words.append(f"{size(event.done)} of {size(event.total)}" if event.total else size(event.done))
        if (rate > 0 or event.rate is not None) and event.done != event.total:
            words.append(f"{size(rate)}/s")
            left = (event.total - event.done) / rate if event.total and rate > 0 else FOREVER
            if left < FOREVER:
                words.append(f"{duration(left)} left")
    elif event.done is not None:
        words.append(
            f"{event.done:g} of {event.total:g} {event.unit}" if event.total else f"{event.done:g} {event.unit}"
        )
    if event.text:
        words.append(event.text)
    return ", ".join(words)
