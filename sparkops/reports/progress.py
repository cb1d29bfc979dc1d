"""Listeners that show a run while it goes: live bars on a terminal, calm lines without one, nothing for JSON."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from sparkops.core import events
from sparkops.reports.text import OUTCOMES
from sparkops.reports.words import duration, safe, size

WIDE = 100
"""Columns from which on there is room for bars."""
CALM = 15.0
"""Seconds between two lines about one step where there is no terminal."""


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
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def show(self, event: events.Event) -> None:
        text = self._line(event)
        if text:
            with self._lock:
                self._write(safe(text))

    def _line(self, event: events.Event) -> str:
        if isinstance(event, events.StepStarted):
            self._said[event.id] = time.monotonic()
        if isinstance(event, events.StepProgress) and time.monotonic() - self._said.get(event.id, 0.0) > CALM:
            self._said[event.id] = time.monotonic()
            return f"  {event.id}: {amount(event)}"
        if isinstance(event, events.StepFinished) and event.outcome != "not-attempted":
            why = f": {event.why}" if event.why else ""
            return f"{OUTCOMES[event.outcome][0]} {event.id} ({event.seconds:.1f} s){why}"
        return ""


class _Bar(BarColumn):
    """A bar where there is a total, and nothing that moves without a meaning where there is none."""

    def render(self, task: Task) -> Any:
        return super().render(task) if task.total else Text("")


class _Words(ProgressColumn):
    """What a step does, cut at its end where the line is short; the time that it has taken so far."""

    def render(self, task: Task) -> Text:
        amount, seconds = task.fields["amount"], task.elapsed or 0.0
        words = [amount] if amount else []
        return Text(", ".join([*words, duration(seconds)] if not task.total else words), style="dim")


def _columns(width: int) -> list[ProgressColumn]:
    """The node comes first and stands whole; a narrow terminal has no bars."""
    named = Column(no_wrap=True, overflow="ellipsis", max_width=max(20, width * 2 // 5))
    told = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    bars: list[ProgressColumn] = [_Bar(bar_width=WIDE // 6)] if width >= WIDE else []
    return [TextColumn("{task.description}", markup=False, table_column=named), *bars, _Words(table_column=told)]


class Live(Silent):
    """One line per running step with bar, rate and time left; finished steps scroll by above."""

    def __init__(self, console: Console, others: tuple[events.Listener, ...] = ()) -> None:
        super().__init__(others)
        self._progress = Progress(
            *_columns(console.width),
            console=console,
            transient=True,
            expand=True,
            refresh_per_second=5,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def paused(self) -> Generator[None, None, None]:
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def show(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.NodeConnecting):
                self._begin(event.node, f"{event.node}  looking")
            elif isinstance(event, (events.NodeObserved, events.NodeFailed)):
                self._end(event.node)
            elif isinstance(event, events.StepStarted):
                self._begin(event.id, f"{event.node}  {event.id.removesuffix(f' @{event.node}')}")
            elif isinstance(event, events.StepProgress):
                self._advance(event)
            elif isinstance(event, events.StepFinished):
                self._end(event.id)
                symbol, style = OUTCOMES[event.outcome]
                if event.outcome == "not-attempted":
                    return
                words = f"{symbol} {event.id}" + (f"  {event.why}" if event.why else "")
                self._progress.console.print(safe(words), style=style, markup=False, highlight=False)

    def _begin(self, key: str, words: str) -> None:
        self._tasks[key] = self._progress.add_task(safe(words), total=None, amount="")
        self._rates[key] = (time.monotonic(), 0.0)

    def _advance(self, event: events.StepProgress) -> None:
        task = self._tasks.get(event.id)
        if task is None:
            return
        since, base = self._rates[event.id]
        if event.done is not None and base == 0.0:
            self._rates[event.id] = since, base = time.monotonic(), event.done
        if event.unit == "s" and event.total is None:
            event = replace(event, done=None)
        rate = ((event.done or 0.0) - base) / max(0.5, time.monotonic() - since)
        self._progress.update(task, completed=event.done or 0, total=event.total, amount=safe(amount(event, rate)))

    def _end(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._progress.remove_task(task)


def amount(event: events.StepProgress, rate: float = 0.0) -> str:
    """Progress in words: `1.2 of 71.0 GB, 480 MB/s, 2 min 25 s left, shard 3 of 14`."""
    words = []
    if event.done is not None and event.unit == "bytes":
        words.append(f"{size(event.done)} of {size(event.total)}" if event.total else size(event.done))
        if rate > 0 and event.done != event.total:
            words.append(f"{size(rate)}/s")
            if event.total:
                words.append(f"{duration((event.total - event.done) / rate)} left")
    elif event.done is not None:
        words.append(
            f"{event.done:g} of {event.total:g} {event.unit}" if event.total else f"{event.done:g} {event.unit}"
        )
    if event.text:
        words.append(event.text)
    return ", ".join(words)
