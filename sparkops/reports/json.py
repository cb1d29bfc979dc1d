"""The Report as JSON: a versioned contract, documented in docs/formats.md. No content, no secrets."""

from __future__ import annotations

from typing import Any

from sparkops.core.nested import plain
from sparkops.core.plan import Orphan, Step, Violation
from sparkops.core.report import Report, Result
from sparkops.core.states import State
from sparkops.core.wording import Message, encoded
from sparkops.reports import schemas
from sparkops.reports.run.findings import Finding, findings

STEP = (
    *("id", "kind", "node", "service", "role", "action", "changes", "before", "after", "disruptive", "outage_seconds"),
    "needs",
)
RESULT = ("id", "node", "outcome", "seconds", "reason", "detail", "found", "notices")


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain values, keys in the documented order."""
    plan = report.plan
    return {
        "schema": schemas.REPORT,
        "command": report.command,
        "exit_status": report.exit_status,
        "cluster": report.cluster,
        "inventory": report.inventory,
        "seconds": round(report.seconds, 3),
        "time": round(report.time, 3),
        "nodes": list(plan.nodes),
        "resources": plan.total,
        "declared": [_picked(each, "id", "node", "service", "where") for each in plan.declared],
        "findings": [finding_as_json(each) for each in findings(report)],
        "steps": [_step(step, plan.blocked.get(step.id)) for step in plan.steps],
        "violations": [_violation(violation) for violation in plan.violations],
        "unknown": encoded(plan.unknown),
        "unreachable": encoded(plan.unreachable),
        "notices": encoded(plan.notices),
        "orphans": [_orphan(each) for each in plan.orphans],
        "between_nodes": [
            {"service": each.service, "fact": each.fact, "values": plain(each.values)} for each in plan.between
        ],
        "results": [_result(result) for result in report.results],
        "endpoints": dict(report.endpoints),
        "rollouts": encoded(report.rollouts),
        "interrupted": report.interrupted,
        "declined": report.declined,
        "run": report.run,
        "whole": report.whole,
        "shards": encoded(report.shards),
    }


def finding_as_json(each: Finding) -> dict[str, object]:
    """A finding, as in `findings[]` of a report."""
    return {
        "id": each.id,
        "state": each.standing,
        "severity": each.severity,
        "node": each.node,
        "resource": each.resource,
        "message": each.text,
        "fix": each.fix,
        "accepted": each.accepted,
        "origin": each.origin,
        "since": encoded(each.since),
    }


def _picked(value: object, *names: str) -> dict[str, object]:
    return {name: encoded(getattr(value, name)) for name in names}


def _step(step: Step, blocked: Message | None) -> dict[str, object]:
    states = {"before": plain(_shown(step.before)), "after": plain(_shown(step.after))}
    return {**_picked(step, *STEP), **states, "blocked": encoded(blocked)}


def _orphan(each: Orphan) -> dict[str, object]:
    kept, remedy = each.kept.words() if each.kept else ("", "")
    return {**encoded(each), "kept": kept, "remedy": remedy, "reason": encoded(each.kept)}


def _violation(each: Violation) -> dict[str, object]:
    place = _picked(each, "id", "resource", "node", "severity")
    return {**place, "reason": each.message.as_json(), "source": each.source, "accepted": each.accepted}


def _result(each: Result) -> dict[str, object]:
    return {**_picked(each, *RESULT), "found": plain(_shown(each.found))}


def _shown(state: State) -> State:
    """A state without the text that kinds carry for diffs only."""
    return None if state is None else {key: value for key, value in state.items() if key != "text"}
