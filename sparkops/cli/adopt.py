"""`sparkops adopt`: take over what already runs on a Spark."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import listener_for, printer_for, show_json
from sparkops.cli.prompts import confirm, is_terminal
from sparkops.operate.adopt import KIND, find, pick, take
from sparkops.operate.connect import reach
from sparkops.reports.adopt import as_json, render, render_outcome


@click.command(
    "adopt",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops adopt                                  the only declared service; shows what differs, and asks
  sparkops adopt spark-01 qwen
  sparkops adopt spark-01 qwen --container vllm --checkpoint /home/nvidia/models/qwen --yes
  sparkops adopt spark-01 qwen --format json      exit status 2: there is something to take over""",
)
@click.argument("node", required=False)
@click.argument("service", required=False)
@options.inventory
@click.option("--container", default="", metavar="NAME", help="This container, where several could be meant")
@click.option(
    "--unit", default="", metavar="NAME", help="The unit to adopt (vllm.service), if none is found automatically"
)
@click.option("--checkpoint", default="", metavar="PATH", help="The model's files are in this folder or cache there")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.text_or_json
@options.common
def command(
    common: CommonOptions,
    node: str | None,
    service: str | None,
    container: str,
    unit: str,
    checkpoint: str,
    yes: bool,
) -> int:
    """Take over what already runs on a Spark in the place of a declared service; nothing is deleted.

    Shown is in what a foreign container or unit differs from the declaration, and which of the model's files are right,
    byte by byte. Once agreed to, right files are taken over by hard links, the container is stopped, loses its restart
    policy and is renamed to NAME-before-sparkops, foreign units are stopped and disabled; the commands that lead back
    are printed. The next apply starts the declared service and fetches only what was not right.

    Exit status 0: taken over, or nothing is there; 2: only shown, or the answer was no; 4: the node refused.
    """
    printer = printer_for(common.no_color)
    as_text = common.form == "text"
    with listener_for(common) as listener:
        made = context(common, listener)
        declared = pick(made.inventory, node, service)
        with reach(made, [declared.rank.node], [KIND]) as fleet:
            found = find(fleet, declared, container=container, unit=unit, folder=checkpoint, listener=listener)
        with listener.paused():
            if as_text:
                render(found, printer)
            stops = " (what runs is stopped)" if found.container is not None or found.units else ""
            question = f"Take it over for {found.service}{stops}?"
            agreed = not found.empty and (yes or (as_text and confirm(question, yes)))
        if agreed:
            found = take(made, declared, found)
    if not as_text:
        show_json(as_json(found))
        return found.exit_status
    render_outcome(found, printer, common.inventory)
    if not found.taken and not found.empty and not is_terminal():
        click.echo("nothing was changed; pass --yes to take it over", err=True)
    return found.exit_status
