"""`sparkops history`: what was done to the nodes."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.operate.history import Run
    from sparkops.reports.text import Printer


@click.command(
    "history",
    epilog="""\b
Examples:
  sparkops history
  sparkops history spark-01 -n 5 -v        with what was changed
  sparkops history --format json""",
)
@options.nodes
@click.option("-n", "--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many runs")
@click.option("-v", "--verbose", is_flag=True, help="Also what was done, by its id")
@options.text_or_json
def command(
    nodes: tuple[str, ...],
    inventory: Path,
    limit: tuple[str, ...],
    last: int,
    verbose: bool,
    jobs: int,
    form: str,
    no_color: bool,
) -> int:
    """Show who did what to the nodes, from where, when and why, out of the record that each node keeps itself.

    Each apply that changed something is in it, and each start, stop, restart and cancel; `-m` of these says why.
    """
    from sparkops.cli.printing import console, passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.history import history, runs
    from sparkops.reports.formatting import safe
    from sparkops.reports.text import Printer

    loaded = load(inventory)
    told, bad = history(
        loaded, named(loaded, (*nodes, *limit)), Connections(passwords_for(loaded)), last=last, jobs=jobs
    )
    if form == "json":
        faults = {node: str(each) for node, each in bad.items()}
        click.echo(json.dumps({"schema": "sparkops.history/1", "nodes": told, "unreachable": faults}, indent=1))
        return 3 if bad else 0
    printer = Printer(console(no_color))
    for run in runs(told, last):
        _show(run, printer, verbose)
    for node, each in bad.items():
        click.echo(safe(f"{node}: {each}"), err=True)
    return 3 if bad else 0


def _show(run: Run, printer: Printer, verbose: bool) -> None:
    from sparkops.reports.formatting import names
    from sparkops.reports.text import OUTCOMES

    about = run.about
    when = datetime.datetime.fromtimestamp(run.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    counts = Counter(str(step.get("outcome")) for step in run.steps)
    printer.line(
        (f"{when}  ", "dim"),
        (f"{about.get('who')} from {about.get('from')}", ""),
        "  ",
        (str(about.get("command")), "bold"),
        f"  {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}",
        (f"  on {names(list(run.entries))}", "dim"),
    )
    if about.get("reason"):
        printer.line(f"“{about['reason']}”", indent=4)
    for step in run.steps if verbose else ():
        symbol, style = OUTCOMES.get(str(step.get("outcome")), ("?", "magenta"))
        printer.line((f"{symbol} ", style), f"{step.get('action')} {step.get('id')}", indent=4)
