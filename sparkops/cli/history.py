"""`sparkops history`: what was done to the nodes."""

from __future__ import annotations

import json

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, printer_for
from sparkops.inventory.limit import named
from sparkops.operate.history import history, runs
from sparkops.reports import schemas
from sparkops.reports.history import render


@click.command(
    "history",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops history
  sparkops history spark-01 -n 5 -v        with the steps
  sparkops history --format json""",
)
@options.nodes
@click.option("-n", "--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many runs")
@click.option("-v", "--verbose", is_flag=True, help="Also what was done, by its id")
@options.text_or_json
@options.common
def command(common: CommonOptions, last: int, verbose: bool) -> int:
    """Show who did what to the nodes, from where, when and why, out of the record that each node keeps itself.

    Each apply that changed something is in it, and each start, stop, restart and cancel; `-m` of these says why.
    """
    made = context(common)
    entries, unreachable = history(made, named(made.inventory, common.selected), last=last)
    if common.form == "json":
        faults = {node: each.message.as_json() for node, each in unreachable.items()}
        click.echo(json.dumps({"schema": schemas.HISTORY, "nodes": entries, "unreachable": faults}, indent=1))
        return 3 if unreachable else 0
    for run in runs(entries, last):
        render(run, printer_for(common.no_color), verbose=verbose)
    echo_unreachable(unreachable)
    return 3 if unreachable else 0
