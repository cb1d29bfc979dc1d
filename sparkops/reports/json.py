"""The Report as JSON: a versioned contract, documented in docs/formats.md. No content, no secrets."""

from __future__ import annotations

import dataclasses
from typing import Any

from sparkops.core.plan import Declared, Step, Violation, plain
from sparkops.core.report import Report, Result, Rollout
from sparkops.core.wording import Message
from sparkops.reports import schemas
from sparkops.reports.run.findings import Finding, findings


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
        "declared": [_declared(each) for each in plan.declared],
        "findings": [finding_as_json(each) for each in findings(report)],
        "steps": [_step(step, plan.blocked.get(step.id)) for step in plan.steps],
        "violations": [_violation(violation) for violation in plan.violations],
        "unknown": {identity: why.as_json() for identity, why in plan.unknown.items()},
        "unreachable": {node: why.as_json() for node, why in plan.unreachable.items()},
        "notices": [each.as_json() for each in plan.notices],
        "orphans": [dataclasses.asdict(orphan) for orphan in plan.orphans],
        "between_nodes": [
            {"service": each.service, "fact": each.fact, "values": plain(each.values)} for each in plan.between
        ],
        "results": [_result(result) for result in report.results],
        "endpoints": dict(report.endpoints),
        "rollouts": [_rollout(each) for each in report.rollouts],
        "interrupted": report.interrupted,
        "declined": report.declined,
        "run": report.run,
        "whole": report.whole,
        "shards": None if report.shards is None else dataclasses.asdict(report.shards),
    }


def _declared(each: Declared) -> dict[str, Any]:
    return {"id": each.id, "node": each.node, "service": each.service, "where": each.where}


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
        "since": None if each.since is None else {"run": each.since.run, "time": each.since.time},
    }


def _step(step: Step, blocked: Message | None) -> dict[str, object]:
    return {
        "id": step.id,
        "kind": step.kind,
        "node": step.node,
        "service": step.service,
        "role": step.role,
        "action": step.action,
        "changes": list(step.changes),
        "before": plain(_shown(step.before)),
        "after": plain(_shown(step.after)),
        "disruptive": step.disruptive,
        "outage_seconds": step.outage_seconds,
        "needs": list(step.needs),
        "blocked": blocked.as_json() if blocked else None,
    }


def _violation(each: Violation) -> dict[str, object]:
    place = {"resource": each.resource, "node": each.node, "severity": each.severity}
    about = {"source": each.source, "accepted": each.accepted}
    return {"id": each.id, **place, "reason": each.message.as_json(), **about}


def _result(each: Result) -> dict[str, object]:
    return {
        "id": each.id,
        "node": each.node,
        "outcome": each.outcome,
        "seconds": each.seconds,
        "reason": each.reason.as_json() if each.reason else None,
        "detail": each.detail,
        "found": plain(_shown(each.found)),
        "notices": [notice.as_json() for notice in each.notices],
    }


def _rollout(each: Rollout) -> dict[str, object]:
    reason = each.reason.as_json() if each.reason else None
    return {"service": each.service, "nodes": list(each.nodes), "state": each.state, "reason": reason}


def _shown(state: Any) -> Any:
    """A state without the text that kinds carry for diffs only."""
    return None if state is None else {key: value for key, value in state.items() if key != "text"}
