"""The Report as JSON: a versioned contract, documented in docs/formats.md. No content, no secrets."""

from __future__ import annotations

import dataclasses
from typing import Any

from sparkops.core.plan import Step, plain
from sparkops.core.report import Report
from sparkops.reports import schemas


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
        "nodes": list(plan.nodes),
        "resources": plan.total,
        "steps": [_step(step, plan.blocked.get(step.id, "")) for step in plan.steps],
        "violations": [dataclasses.asdict(violation) for violation in plan.violations],
        "unknown": {identity: why.why for identity, why in plan.unknown.items()},
        "unreachable": dict(plan.unreachable),
        "notices": list(plan.notices),
        "orphans": [dataclasses.asdict(orphan) for orphan in plan.orphans],
        "results": [dataclasses.asdict(result) for result in report.results],
        "endpoints": dict(report.endpoints),
        "interrupted": report.interrupted,
        "declined": report.declined,
        "run": report.run,
    }


def _step(step: Step, blocked: str) -> dict[str, Any]:
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
        "needs": list(step.needs),
        "blocked": blocked,
    }


def _shown(state: Any) -> Any:
    """A state without the text that kinds carry for diffs only."""
    return None if state is None else {key: value for key, value in state.items() if key != "text"}
