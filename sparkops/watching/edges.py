"""Which findings came and went between looks, each told once, after a hold time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sparkops.core.messages import Fields
from sparkops.core.report import Report
from sparkops.reports import schemas
from sparkops.reports.json import finding_as_json
from sparkops.reports.run.findings import Finding, Standing, findings, looked_at, standings


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What a watcher has told and what waits for its hold time, by what findings are about.

    told: findings (as in a report's JSON) that were told as there. coming: others that are there. since: when (seconds
    since the epoch) one that is coming was first seen, or one that was told was first seen gone.
    """

    told: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    coming: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """For `from_json` of a later process."""
        return {"told": dict(self.told), "coming": dict(self.coming), "since": dict(self.since)}

    @classmethod
    def from_json(cls, kept: Mapping[str, object]) -> Edges:
        """What `as_json` made; nothing told where that is not whole."""
        told, coming, since = (kept.get(name) for name in ("told", "coming", "since"))
        if not (isinstance(told, dict) and isinstance(coming, dict) and isinstance(since, dict)):
            return cls()
        whole = all(_is_finding(each) for each in (*told.values(), *coming.values()))
        times = all(isinstance(each, (int, float)) for each in since.values())
        return (
            cls(told=told, coming=coming, since=since) if whole and times and coming.keys() <= since.keys() else cls()
        )


def _is_finding(each: object) -> bool:
    keys = ("id", "state", "severity", "node", "resource", "message")
    return isinstance(each, dict) and all(isinstance(each.get(key), str) for key in keys)


def advanced(before: Edges, report: Report, hold: float) -> tuple[Edges, list[dict[str, object]]]:
    """Where the watcher stands after one more report, and the changes to tell.

    A finding is told once it is `hold` seconds old and was never seen gone meanwhile; its end likewise. A look that
    could not see it decides neither. What is only `info` (accepted, intentional, kept) is not told.
    """
    every = findings(report)
    states = standings(report, every)
    there = {_about(each): finding_as_json(each) for each in every if each.severity != "info"}
    told: dict[str, Mapping[str, object]] = {}
    coming: dict[str, Mapping[str, object]] = {}
    since: dict[str, float] = {}
    changes: list[dict[str, object]] = []
    for about, finding in {**before.told, **before.coming, **there}.items():
        was, is_there = about in before.told, about in there
        is_gone = not is_there and _gone(finding, report, states)
        start = before.since.get(about)
        if is_there if was else is_gone:
            start = None
        elif is_there or is_gone:
            start = report.time if start is None else min(start, report.time)  # a clock may be set back
        over = start is not None and (is_there or is_gone) and report.time - start >= hold
        if over:
            changes.append({"change": "went" if was else "appeared", "since": start, "finding": finding})
        elif start is not None:
            since[about] = start
        if was != over:
            told[about] = finding
        elif about in since:
            coming[about] = finding
    return Edges(told=told, coming=coming, since=since), changes


def _about(each: Finding) -> str:
    """What is equal for one finding in several looks; why something is not known may change from look to look."""
    return f"unknown {each.resource or '@' + each.node}" if each.standing == "unknown" else each.sign


def _gone(finding: Fields, report: Report, states: Mapping[str, Standing]) -> bool:
    """Whether the look saw that a finding which it does not have is there no more."""
    node, resource = finding["node"], finding["resource"]
    if node not in report.plan.nodes:
        return True
    if finding["state"] == "unknown":
        return not resource or node not in report.plan.unreachable
    return looked_at(report, states, node, resource)


def message(report: Report, changes: list[dict[str, object]]) -> dict[str, object]:
    """What is told of the changes of one look."""
    return {
        "schema": schemas.CHANGES,
        "cluster": report.cluster,
        "inventory": report.inventory,
        "run": report.run,
        "time": round(report.time, 3),
        "changes": changes,
    }
