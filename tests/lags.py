"""How long steps waited though nothing kept them: what a run's event log says of its schedule."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

from sparkops.core.events import Event, StepFinished, StepStarted
from sparkops.core.plan import Step
from sparkops.reconcile.schedule import PER_NODE


def lags(steps: Iterable[Step], log: Iterable[Event]) -> Mapping[str, float]:
    """Seconds for which each step that was started waited while what it needs was done and its node had a free slot."""
    began = {each.id: each.time for each in log if isinstance(each, StepStarted)}
    ended = {each.id: each.time for each in log if isinstance(each, StepFinished)}
    first = min(began.values(), default=0.0)
    changes: dict[str, list[tuple[float, int]]] = defaultdict(list)
    steps = [each for each in steps if each.id in began]
    for each in steps:
        changes[each.node] += [(began[each.id], 1), (ended[each.id], -1)]
    for node in changes:
        changes[node].sort()
    ready = {each.id: max([first, *(ended[need] for need in each.needs)]) for each in steps}
    return {each.id: _free(changes[each.node], ready[each.id], began[each.id]) for each in steps}


def _free(changes: Sequence[tuple[float, int]], since: float, until: float) -> float:
    """Seconds between two times in which fewer than PER_NODE steps ran."""
    running, last, free = 0, since, 0.0
    for moment, change in changes:
        if moment > since:
            free += max(0.0, min(moment, until) - last) if running < PER_NODE else 0.0
            last = max(last, min(moment, until))
        running += change
    return free


@contextmanager
def oversleeping() -> Generator[list[float]]:
    """The most seconds by which this process was woken late meanwhile: what the machine's load adds to any wait."""
    over, late = threading.Event(), [0.0]

    def watch() -> None:
        while not over.is_set():
            began = time.monotonic()
            over.wait(0.01)
            late[0] = max(late[0], time.monotonic() - began - 0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        over.set()
        thread.join()
