"""The long jobs of nodes that `sparkops cancel` lists and ends, as JSON and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from sparkops.core.errors import SparkopsError
from sparkops.core.events import StepProgress
from sparkops.core.wording import Message, duration
from sparkops.operate.cancel import NodeJob
from sparkops.reports import schemas
from sparkops.reports.plain_progress import amount
from sparkops.reports.printer import Printer


def as_json(
    found: Sequence[NodeJob], outcomes: Mapping[NodeJob, Message | None], unreachable: Mapping[str, SparkopsError]
) -> dict[str, object]:
    """`sparkops.jobs/2`."""
    rows = [
        {"node": job.node, "key": job.key, "since": job.since, "progress": job.progress, **_outcome(job, outcomes)}
        for job in found
    ]
    faults = {node: each.message.as_json() for node, each in unreachable.items()}
    return {"schema": schemas.JOBS, "jobs": rows, "unreachable": faults}


def _outcome(job: NodeJob, outcomes: Mapping[NodeJob, Message | None]) -> dict[str, object]:
    reason = outcomes.get(job)
    outcome = None if job not in outcomes else "failed" if reason else "done"
    return {"outcome": outcome, "reason": reason.as_json() if reason else None}


def render(found: Sequence[NodeJob], printer: Printer) -> None:
    """The running jobs with their progress."""
    for job in found:
        text = amount(StepProgress.from_mapping(job.node, job.key, job.progress)) or "running"
        printer.line(f"{job.node}  {job.key}: {text} (for {duration(time.time() - job.since)})")
    if not found:
        printer.line("no job runs")


def render_outcomes(outcomes: Mapping[NodeJob, Message | None], printer: Printer) -> None:
    """What became of each job that was to end."""
    for job, outcome in outcomes.items():
        if outcome is None:
            printer.line(("✓ ", "green"), f"{job.node}  {job.key}: ended")
        else:
            printer.line(("✗ ", "red"), f"{job.node}  {job.key}: {outcome.text}")
