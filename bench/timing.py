"""Timing on a shared, noisy machine: interleaved rounds, medians, ratios."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def side_by_side(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of each work, all in turn in each round, so that what disturbs one disturbs the others as well.

    `cpu` is the median of the CPU seconds of this process and of those that the work started and waited for.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    burnt: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            before, started = _cpu(), time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
            burnt[name].append(_cpu() - before)
    return {
        name: {
            "median": round(statistics.median(each), 4),
            "min": round(min(each), 4),
            "max": round(max(each), 4),
            "cpu": round(statistics.median(burnt[name]), 4),
            "rounds": rounds,
        }
        for name, each in taken.items()
    }


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def ratio(figures: Mapping[str, Mapping[str, Any]], of: str, to: str) -> float:
    """How many times the median of one is the median of the other."""
    return round(float(figures[of]["median"]) / float(figures[to]["median"]), 2)
