"""`sparkops cancel`: end the jobs that run on nodes."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import answer, lines, printer_for
from sparkops.cli.prompts import confirm
from sparkops.core.wording import Message
from sparkops.inventory.limit import named
from sparkops.operate.cancel import NodeJob, cancel, running
from sparkops.operate.connect import reach
from sparkops.reconcile.history import KIND
from sparkops.reports import jobs
from sparkops.reports.formatting import count


@click.command(
    "cancel",
    cls=WithInventory,
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
@options.common
def command(common: CommonOptions, yes: bool, only: bool) -> int:
    """List the long jobs (fetching, pulling, building) that run on nodes, and end them.

    What they have brought so far is kept; the next apply resumes. Exit status 3: a node was silent, 4: one did not end.
    """
    made = context(common, lines())
    chosen = named(made.inventory, common.selected)
    outcomes: dict[NodeJob, Message | None] = {}
    with reach(made, chosen, [KIND]) as fleet:
        found, unreachable = running(fleet, chosen)
        if common.form == "text":
            jobs.render(found, printer_for(common.no_color))
        number = count(len(found), "job")
        if found and not only and confirm(f"End {number}?", yes, "cancel-unconfirmed", jobs=number):
            outcomes = cancel(fleet, made.inventory, found, reason=common.reason)
    document = jobs.as_json(found, outcomes, unreachable)
    silent = {node: each.message for node, each in unreachable.items()}
    answer(common, document, lambda printer: jobs.render_outcomes(outcomes, printer), silent)
    if any(outcomes.values()):
        return 4
    return 3 if unreachable else 0
