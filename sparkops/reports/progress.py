"""The listener that shows a run on a terminal while it goes: live bars. What needs no terminal stands in `calm`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from sparkops.core import events
from sparkops.core.wording import duration
from sparkops.reports.formatting import beginning, safe
from sparkops.reports.plain_progress import Silent, amount
from sparkops.reports.text import OUTCOMES

WIDE = 100
"""Columns from which on there is room for bars."""


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
            elif isinstance(event, events.Notice):
                self._progress.console.print(
                    safe(f"i {event.message.text}"), style="blue", markup=False, highlight=False
                )
            elif isinstance(event, events.StepFinished):
                self._end(event.id)
                symbol, style = OUTCOMES[event.outcome]
                if event.outcome == "not-attempted":
                    return
                words = f"{symbol} {event.id}" + (f"  {beginning(event.reason.text)}" if event.reason else "")
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
