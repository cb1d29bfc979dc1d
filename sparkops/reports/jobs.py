"""The long jobs of nodes that `sparkops cancel` lists and ends, as JSON and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from sparkops.core.errors import SparkopsError
from sparkops.core.events import StepProgress
from sparkops.core.wording import duration
from sparkops.operate.cancel import NodeJob
from sparkops.reports import schemas
from sparkops.reports.plain_progress import amount
from sparkops.reports.text import Printer


def as_json(
    found: Sequence[NodeJob], outcomes: Mapping[NodeJob, str], unreachable: Mapping[str, SparkopsError]
) -> dict[str, Any]:
    """`sparkops.jobs/1`."""
    rows = [
        {"node": job.node, "key": job.key, "since": job.since, "progress": job.progress, "outcome": outcomes.get(job)}
        for job in found
    ]
    faults = {node: str(each) for node, each in unreachable.items()}
    return {"schema": schemas.JOBS, "jobs": rows, "unreachable": faults}


def render(found: Sequence[NodeJob], printer: Printer) -> None:
    """The running jobs with their progress."""
    for job in found:
        text = amount(StepProgress.from_mapping(job.node, job.key, job.progress)) or "running"
        printer.line(f"{job.node}  {job.key}: {text} (for {duration(time.time() - job.since)})")
    if not found:
        printer.line("no job runs")


def render_outcomes(outcomes: Mapping[NodeJob, str], printer: Printer) -> None:
    """What became of each job that was to end."""
    for job, outcome in outcomes.items():
        if outcome == "done":
            printer.line(("✓ ", "green"), f"{job.node}  {job.key}: ended")
        else:
            printer.line(("✗ ", "red"), f"{job.node}  {job.key}: {outcome}")
