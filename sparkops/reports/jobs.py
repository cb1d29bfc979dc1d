"""The long jobs of nodes that `sparkops cancel` lists and ends, as JSON and as text."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

from sparkops.core.errors import SparkopsError
from sparkops.core.events import StepProgress
from sparkops.core.wording import Message, duration, encoded
from sparkops.operate.cancel import NodeJob
from sparkops.reports import schemas
from sparkops.reports.plain_progress import amount
from sparkops.reports.printer import Printer

Thing = TypeVar("Thing")


def as_json(
    found: Sequence[NodeJob], outcomes: Mapping[NodeJob, Message | None], unreachable: Mapping[str, SparkopsError]
) -> dict[str, object]:
    """`sparkops.jobs/2`."""
    rows = [{**encoded(job), **outcome_of(job, outcomes)} for job in found]
    faults = {node: each.message.as_json() for node, each in unreachable.items()}
    return {"schema": schemas.JOBS, "jobs": rows, "unreachable": faults}


def outcome_of(thing: Thing, outcomes: Mapping[Thing, Message | None]) -> dict[str, object]:
    """How it ended, and why not well; null for what was not begun."""
    reason = outcomes.get(thing)
    return {"outcome": None if thing not in outcomes else "failed" if reason else "done", "reason": encoded(reason)}


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
