"""Timing on a shared, noisy machine: interleaved rounds, medians, ratios."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def of_children() -> float:
    """A clock of the CPU seconds of this process's programs: other work disturbs it less than a wall's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def side_by_side(
    works: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, dict[str, Any]]:
    """Seconds of each work, all in turn in each round, so that what disturbs one disturbs the others as well."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = clock()
            work()
            taken[name].append(clock() - started)
    return {name: summary(each) for name, each in taken.items()}


def summary(taken: Sequence[float]) -> dict[str, Any]:
    """Median, least and most of some seconds, and how many rounds they are from."""
    return {
        "median": round(statistics.median(taken), 4),
        "min": round(min(taken), 4),
        "max": round(max(taken), 4),
        "rounds": len(taken),
    }


def ratio(figures: Mapping[str, Mapping[str, Any]], of: str, to: str) -> float:
    """How many times the median of one is the median of the other."""
    return round(float(figures[of]["median"]) / float(figures[to]["median"]), 2)
