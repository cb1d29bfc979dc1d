"""`sparkops gc`: give back what images and checkpoints hold that nothing needs any more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.operate.gc import Reclaimable
    from sparkops.reports.text import Printer


@click.command(
    "gc",
    epilog="""\b
Examples:
  sparkops gc                              shows what would go and what stays, and asks
  sparkops gc inventory.yml --limit spark-01 --checkpoints
  sparkops gc --foreign --format json      also images of others; exit status 2: there is something to reclaim
  sparkops gc --yes -m "the disk is full"  removes unasked""",
)
@options.inventory_argument
@options.limit
@click.option("--images", is_flag=True, help="Images only")
@click.option("--checkpoints", is_flag=True, help="Checkpoints only")
@click.option("--foreign", is_flag=True, help="Also show images that sparkops did not bring; they are never removed")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.jobs
@options.text_or_json
def command(
    inventory: Path,
    limit: tuple[str, ...],
    images: bool,
    checkpoints: bool,
    foreign: bool,
    yes: bool,
    reason: str,
    jobs: int,
    form: str,
    no_color: bool,
) -> int:
    """Remove images and checkpoints that sparkops brought and that nothing declares or uses any more.

    Kept is what any container (a stopped one too), unit, program, running job or other cluster on the node uses, and
    what sparkops did not put there; each with its reason. Without a terminal and without --yes it only shows.

    Exit status 0: nothing (left) to reclaim; 2: there is something; 3: a node was silent; 4: a removal failed.
    """
    from sparkops.cli.printing import console, passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.connect import reach
    from sparkops.operate.gc import KIND, KINDS, look, remove
    from sparkops.reconcile.history import KIND as HISTORY
    from sparkops.reports.plain_progress import Lines
    from sparkops.reports.text import Printer

    loaded = load(inventory)
    nodes = named(loaded, limit)
    chosen = [kind for kind, wanted in zip(KINDS, (checkpoints, images), strict=True) if wanted] or list(KINDS)
    printer = Printer(console(no_color))
    listener = Lines(lambda line: print(line, file=sys.stderr, flush=True))
    with reach(loaded, nodes, [KIND, HISTORY], Connections(passwords_for(loaded)), jobs=jobs) as fleet:
        found = look(fleet, loaded, nodes, chosen, foreign=foreign)
        if form == "text":
            _show(found, printer)
        if found.going and (yes or _agreed(found, form)):
            found = remove(fleet, loaded, found, reason=reason, listener=listener)
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _outcome(found, printer)
    return found.exit_status


def _show(found: Reclaimable, printer: Printer) -> None:
    from sparkops.reports.formatting import size
    from sparkops.reports.table import Cell, table

    rows: list[list[Cell] | str] = []
    for item in found.items:
        style = "dim" if item.kept else "bold"
        rows.append([item.node, item.kind, (size(item.bytes), style), (item.name, style)])
        rows += [f"kept: {item.kept}"] if item.kept else [item.note] if item.note else []
    if rows:
        table(printer, ("NODE", "", "BYTES", ""), rows)
    total = sum(item.bytes for item in found.going)
    unknown = sum(item.bytes for item in found.items if item.unknown)
    words = f"{size(total)} can be given back" if found.going else "nothing to give back"
    printer.line(words + (f"; of {size(unknown)} more it is not known" if unknown else ""))


def _agreed(found: Reclaimable, form: str) -> bool:
    from sparkops.reports.formatting import count, size

    if form == "json" or not options.is_terminal():
        return False
    total = size(sum(item.bytes for item in found.going))
    return click.confirm(f"Remove {count(len(found.going), 'thing')} with {total}?")


def _outcome(found: Reclaimable, printer: Printer) -> None:
    from sparkops.reports.formatting import safe, size

    for item, outcome in found.outcomes.items():
        good = outcome == "done"
        mark = ("✓ ", "green") if good else ("✗ ", "red")
        printer.line(mark, f"{item.kind} {item.name} @{item.node}" + ("" if good else f": {outcome}"))
    freed = [item.bytes for item, outcome in found.outcomes.items() if outcome == "done"]
    if freed:
        printer.line(f"{size(sum(freed))} given back")
    elif found.going and not options.is_terminal():
        click.echo("nothing was touched; --yes removes it", err=True)
    for node, why in found.silent.items():
        click.echo(safe(f"{node}: {why}"), err=True)
