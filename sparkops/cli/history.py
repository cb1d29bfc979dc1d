"""`sparkops history`: what was done to the nodes."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, printer_for, show_json
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
  sparkops history --format json
  sparkops history --runs                  the runs that this machine keeps, drift included""",
)
@options.nodes
@click.option("-n", "--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many runs")
@click.option("-v", "--verbose", is_flag=True, help="Also what was done, by its id")
@click.option("--runs", "kept", is_flag=True, help="Ask no node: the runs that this machine keeps")
@options.text_or_json
@options.common
def command(common: CommonOptions, last: int, verbose: bool, kept: bool) -> int:
    """Show who did what to the nodes, from where, when and why, out of the record that each node keeps itself.

    Each apply that changed something is in it, and each start, stop, restart and cancel; `-m` of these says why.

    --runs lists the kept runs of this machine instead: every drift, apply, rollback and remove of 30 days, and the
    newest 100 that changed nodes; `sparkops report RUN` shows one again.
    """
    if kept:
        from sparkops.cli.report import show_runs

        return show_runs(common, last)
    made = context(common)
    entries, unreachable = history(made, named(made.inventory, common.selected), last=last)
    if common.form == "json":
        faults = {node: each.message.as_json() for node, each in unreachable.items()}
        show_json({"schema": schemas.HISTORY, "nodes": entries, "unreachable": faults})
        return 3 if unreachable else 0
    for run in runs(entries, last):
        render(run, printer_for(common.no_color), verbose=verbose)
    echo_unreachable({node: each.message for node, each in unreachable.items()})
    return 3 if unreachable else 0
