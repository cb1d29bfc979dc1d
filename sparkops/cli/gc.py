"""`sparkops gc`: free the space of images and checkpoints that nothing needs any more."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, lines, printer_for, show_json
from sparkops.cli.prompts import confirm, is_terminal
from sparkops.core.wording import size
from sparkops.inventory.limit import named
from sparkops.operate.connect import reach
from sparkops.operate.gc import KIND, kinds, look, remove
from sparkops.reconcile.history import KIND as HISTORY
from sparkops.reports.formatting import count
from sparkops.reports.gc import as_json, render, render_outcome


@click.command(
    "gc",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops gc                              shows what would go and what stays, and asks
  sparkops gc inventory.yml --limit spark-01 --checkpoints
  sparkops gc --foreign --format json      also images of others; exit status 2: there is something to reclaim
  sparkops gc --yes -m "the disk is full"  removes unasked""",
)
@options.inventory
@options.limit
@click.option("--images", is_flag=True, help="Images only")
@click.option("--checkpoints", is_flag=True, help="Checkpoints only")
@click.option("--foreign", is_flag=True, help="Also show images that sparkops did not bring; they are never removed")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.jobs
@options.text_or_json
@options.common
def command(common: CommonOptions, images: bool, checkpoints: bool, foreign: bool, yes: bool) -> int:
    """Remove images and checkpoints that sparkops brought and that nothing declares or uses any more.

    Kept is what any container (a stopped one too), unit, program, running job or other cluster on the node uses, and
    what sparkops did not put there; each with its reason. Without a terminal and without --yes it only shows.

    Exit status 0: nothing (left) to reclaim; 2: there is something; 3: a node was silent; 4: a removal failed.
    """
    made = context(common, lines())
    nodes = named(made.inventory, common.limit)
    only = [kind for kind, wanted in (("checkpoint", checkpoints), ("image", images)) if wanted]
    printer = printer_for(common.no_color)
    as_text = common.form == "text"
    with reach(made, nodes, [KIND, HISTORY, *kinds()]) as fleet:
        found = look(fleet, made.inventory, nodes, only, foreign=foreign)
        if as_text:
            render(found, printer)
        total = size(sum(item.bytes for item in found.going))
        question = f"Remove {count(len(found.going), 'item')} with {total}?"
        if found.going and (yes or (as_text and confirm(question, yes))):
            found = remove(fleet, made.inventory, found, reason=common.reason)
    if not as_text:
        show_json(as_json(found))
        return found.exit_status
    render_outcome(found, printer)
    if found.going and not found.outcomes and not is_terminal():
        click.echo("nothing was changed; pass --yes to remove it", err=True)
    echo_unreachable(found.silent)
    return found.exit_status
