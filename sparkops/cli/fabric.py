"""`sparkops fabric`: what the links between the nodes really carry."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, listener_for, show_json
from sparkops.inventory.limit import named
from sparkops.operate.fabric.check import check
from sparkops.reports.fabric_check import as_json, lines
from sparkops.reports.formatting import safe
from sparkops.resources.measuring.cable import SECONDS


@click.group(
    "fabric",
    epilog="""\b
Examples:
  sparkops fabric check                    all links of the inventory's nodes
  sparkops fabric check spark-01 spark-02""",
)
def command() -> None:
    """Measure the links between the nodes."""


@command.command(
    "check",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops fabric check
  sparkops fabric check spark-01 spark-02 --seconds 5
  sparkops fabric check --format json""",
)
@click.argument("nodes", nargs=-1, metavar="[NODE…]")
@options.inventory
@options.limit
@options.extra
@click.option(
    "--seconds", type=click.FloatRange(1, 60), default=SECONDS, show_default=True, help="Length of each measurement"
)
@click.option("--while-serving", is_flag=True, help="Measure though engines over several nodes run; they slow down")
@options.jobs
@options.text_or_json
@options.common
def check_command(common: CommonOptions, seconds: float, while_serving: bool) -> int:
    """Measure each link between the nodes: alone, and both links of a cable together.

    Whole packets must pass in both directions without being fragmented. Bandwidth is measured by RDMA where both nodes
    have `ib_write_bw` (package perftest), else by TCP, which processors bound too: by TCP only what is far too slow is
    told.

    Exit status 0: all is good, 2: something is wrong, 3: something could not be measured.
    """
    with listener_for(common) as listener:
        made = context(common, listener)
        checked = check(made, named(made.inventory, common.selected), seconds=seconds, serving=while_serving)
    if common.form == "json":
        show_json(as_json(checked))
    else:
        for line in lines(checked):
            click.echo(safe(line))
        echo_unreachable(checked.silent)
    return checked.exit_status
