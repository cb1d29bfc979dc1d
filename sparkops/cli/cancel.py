"""`sparkops cancel`: end the jobs that run on nodes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.operate.cancel import NodeJob


@click.command(
    "cancel",
    epilog="""\b
Examples:
  sparkops cancel                      shows what runs on all nodes, and asks
  sparkops cancel spark-02 --yes
  sparkops cancel --list               only shows it""",
)
@options.nodes
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@click.option("--list", "only", is_flag=True, help="Show the jobs and end none")
@options.reason
@options.text_or_json
def command(
    nodes: tuple[str, ...],
    inventory: Path,
    limit: tuple[str, ...],
    yes: bool,
    only: bool,
    reason: str,
    jobs: int,
    form: str,
    no_color: bool,
) -> int:
    """List the long jobs (fetching, pulling, building) that run on nodes, and end them.

    What they have brought so far is kept; the next apply resumes. Exit status 3: a node was silent, 4: one did not end.
    """
    from sparkops.cli.printing import passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.cancel import cancel, running
    from sparkops.operate.connect import reach
    from sparkops.reconcile.history import KIND
    from sparkops.reports.plain_progress import Lines

    loaded = load(inventory)
    chosen = named(loaded, (*nodes, *limit))
    outcomes: dict[NodeJob, str] = {}
    listener = Lines(lambda line: print(line, file=sys.stderr, flush=True))
    with reach(loaded, chosen, [KIND], Connections(passwords_for(loaded)), jobs=jobs) as fleet:
        found, bad = running(fleet, chosen)
        if form == "text":
            _list(found)
        if found and not only and _agreed(len(found), yes):
            outcomes = cancel(fleet, loaded, found, reason=reason, listener=listener)
    if form == "json":
        rows = [
            {
                "node": job.node,
                "key": job.key,
                "since": job.since,
                "progress": job.progress,
                "outcome": outcomes.get(job),
            }
            for job in found
        ]
        faults = {node: str(each) for node, each in bad.items()}
        click.echo(json.dumps({"schema": "sparkops.jobs/1", "jobs": rows, "unreachable": faults}, indent=1))
    else:
        _outcome(outcomes, {node: str(each) for node, each in bad.items()})
    if any(outcome != "done" for outcome in outcomes.values()):
        return 4
    return 3 if bad else 0


def _list(found: Sequence[NodeJob]) -> None:
    from sparkops.core.events import StepProgress
    from sparkops.reports.formatting import duration, safe
    from sparkops.reports.plain_progress import amount

    for job in found:
        known = {
            key: job.progress[key] for key in ("text", "done", "total", "unit") if job.progress.get(key) is not None
        }
        words = amount(StepProgress(node=job.node, id=job.key, **known)) or "running"
        click.echo(safe(f"{job.node}  {job.key}: {words} (for {duration(time.time() - job.since)})"))
    if not found:
        click.echo("no job runs")


def _outcome(outcomes: Mapping[NodeJob, str], faults: Mapping[str, str]) -> None:
    from sparkops.reports.formatting import safe

    for job, outcome in outcomes.items():
        words = "✓ {}  {}: ended" if outcome == "done" else "✗ {}  {}: {}"
        click.echo(safe(words.format(job.node, job.key, outcome)))
    for node, fault in faults.items():
        click.echo(safe(f"{node}: {fault}"), err=True)


def _agreed(number: int, yes: bool) -> bool:
    from sparkops.core.errors import InventoryError
    from sparkops.reports.formatting import count

    if yes:
        return True
    if not options.is_terminal():
        raise InventoryError(
            f"this ends {count(number, 'job')}, and there is no terminal to ask at",
            hint="nothing was touched; give --yes to go on without the question",
        )
    return click.confirm(f"End {count(number, 'job')}?")
