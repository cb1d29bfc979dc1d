"""Who did what to the nodes, when and why: out of each node's own record, one entry per run and node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.request_messages import HistoryRequest
from sparkops.operate.connect import Context, reach
from sparkops.reconcile.history import KIND

LATEST = 1e11
"""Seconds since the epoch: a time that a record may have; the year 5138."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as its nodes recorded it. `time` is the first node's, seconds since the epoch; `steps` are all nodes'."""

    time: float
    entries: Mapping[str, Fields]

    @property
    def about(self) -> Mapping[str, object]:
        """What is the same on every node: who, from, command, reason, …"""
        return next(iter(self.entries.values()))

    @property
    def steps(self) -> tuple[Mapping[str, object], ...]:
        return tuple(
            step
            for entry in self.entries.values()
            if isinstance(steps := entry.get("steps"), list)
            for step in steps
            if isinstance(step, Mapping)
        )


def history(
    context: Context, nodes: Sequence[str], *, last: int
) -> tuple[dict[str, Sequence[Mapping[str, object]]], dict[str, SparkopsError]]:
    """The newest `last` entries of each node, oldest first; and what kept the others from answering."""
    with reach(context, nodes, [KIND]) as fleet:
        return fleet.each(
            nodes,
            lambda node, session: session.call(
                f"{KIND}.read", HistoryRequest(state_dir=fleet.targets[node].state_dir, last=last), timeout=30
            ),
        )


def runs(entries_by_node: Mapping[str, Sequence[Mapping[str, object]]], last: int) -> tuple[Run, ...]:
    """The newest `last` runs over all nodes, oldest first. Pure.

    A node's record is in the order of what was done, whatever its clock said: what it says to have been later than
    the next entry was not.
    """
    grouped: dict[str, dict[str, Mapping[str, object]]] = {}
    places: dict[str, list[float]] = {}
    for node, entries in entries_by_node.items():
        latest = LATEST
        told = [each for each in entries if isinstance(each, Mapping)]
        for number, entry in reversed([*enumerate(told)]):
            run = str(entry.get("run") or f"{node} {number}")
            latest = min(latest, _time(entry))
            grouped.setdefault(run, {})[node] = entry
            places.setdefault(run, []).append(latest)
    found = {run: Run(time=min(map(_time, each.values())), entries=each) for run, each in grouped.items()}
    oldest_first = [*reversed(found)]
    oldest_first.sort(key=lambda run: min(places[run]))
    return tuple(found[run] for run in oldest_first[-last:])


def _time(entry: Mapping[str, object]) -> float:
    time = entry.get("time")
    return float(time) if isinstance(time, (int, float)) and abs(time) < LATEST else 0.0
