"""`sparkops apply`: the whole run, with a question before anything is changed."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.interrupts import interrupts
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import load
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import asking, finish, listener_for
from sparkops.cli.prompts import confirm
from sparkops.core.report import Report
from sparkops.operate import plans
from sparkops.reports.formatting import count, names


@click.command(
    "apply",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops apply inventory.yml
  sparkops apply inventory.yml --yes              unasked, also what interrupts a service: for timers and CI
  sparkops apply inventory.yml --limit spark-01 --role driver
  sparkops apply inventory.yml --shard 2/4 --yes  the second of four parts of the nodes
  sparkops apply inventory.yml --replace "unit qwen.service @spark-01" -m "hung after the driver update"
  sparkops apply inventory.yml --prune            also removes what is no longer declared
  sparkops apply inventory.yml --report markdown=done.md
  sparkops apply inventory.yml --plan plan.json   exactly what `plan -o plan.json` saved, or nothing""",
)
@options.inventory
@options.selection
@options.jobs
@options.output
@click.option("--prune", is_flag=True, help="Also remove what this cluster put there and no longer declares")
@click.option("--retry", is_flag=True, help="Try once more what a rollout has taken back")
@click.option("-y", "--yes", is_flag=True, help="Don't ask; needed without a terminal")
@click.option(
    "--plan",
    "plan",
    type=click.Path(path_type=Path),
    help="Apply a saved plan without a question; refused if anything in it no longer holds",
)
@click.option(
    "--replace",
    multiple=True,
    metavar="ID",
    help="Do this again though it is as declared: rewrite a file, restart a unit, pull an image, verify a checkpoint",
)
@click.option("--locked", is_flag=True, help="Refuse if the lock file lacks an entry, instead of adding it")
@options.reason
@options.common
def command(
    common: CommonOptions,
    yes: bool,
    prune: bool,
    retry: bool,
    plan: Path | None,
    locked: bool,
    replace: tuple[str, ...],
    output: Path | None,
    verbose: int,
) -> int:
    """Bring the nodes into the declared state, after showing the plan and asking; without a terminal, with --yes.

    What is right already is not touched; a second run changes nothing and asks nothing.

    Ctrl-C once finishes the running steps and stops; twice leaves at once. What a node does by itself (fetching,
    pulling, building) goes on there: the same command follows it, and sparkops cancel ends it.
    """
    if plan is not None and replace:
        raise click.UsageError("--replace cannot be used with --plan")
    if prune and (common.limit or common.roles or plan):
        raise click.UsageError("--prune needs the whole inventory as it is now: leave out --limit, --role and --plan")
    if plan is not None and (common.limit or common.roles or common.shard):
        raise click.UsageError("--limit, --role and --shard cannot be used with --plan, which has its own")
    saved = plans.load(plan) if plan is not None else None
    if saved is not None:
        common = dataclasses.replace(common, **saved.selection)
    cluster = load(common)
    stop = threading.Event()
    with listener_for(common) as listener, interrupts(stop):
        report = cluster.apply(
            asking(common, listener, verbose, lambda report: _agree(report, yes or plan is not None)),
            saved=saved,
            replace=replace,
            prune=prune,
            retry=retry,
            locked=locked,
            reason=common.reason,
            listener=listener,
            stop=stop,
        )
    return finish(report, common, output, verbose)


def _agree(report: Report, yes: bool) -> bool:
    """Whether what the plan would do is agreed to; what only looks needs no answer."""
    plan = report.plan
    changes = [step for step in plan.steps if step.id not in plan.blocked and step.action != "verify"]
    if not changes:
        return True
    what = f"{count(len(changes), 'change')} on {names(sorted({step.node for step in changes}))}"
    if interrupted := sorted({step.service or step.id for step in changes if step.disruptive}):
        what += f", interrupting {names(interrupted)}"
    return confirm(f"Make {what}?", yes, "apply-unconfirmed", what=what)
