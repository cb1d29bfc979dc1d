"""`sparkops logs`: the journals of a service's units."""

from __future__ import annotations

import datetime
import json

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import printer_for
from sparkops.core.errors import SparkopsError
from sparkops.inventory.limit import named
from sparkops.operate.logs import Entry, logs
from sparkops.operate.services import chosen
from sparkops.reports.formatting import safe
from sparkops.reports.printer import Printer


@click.command(
    "logs",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops logs qwen
  sparkops logs qwen -f -n 20              and what comes, until Ctrl-C
  sparkops logs qwen --limit spark-02
  sparkops logs qwen --format json         one JSON object a line""",
)
@click.argument("service")
@options.inventory
@options.limit
@options.extra
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=100,
    show_default=True,
    help="How many of the last entries of each node",
)
@options.text_or_json
@options.common
def command(common: CommonOptions, service: str, follow: bool, lines: int) -> int:
    """Print the logs of a service, several nodes merged by time. Exit status 3: a node could not be asked."""
    made = context(common)
    wanted = named(made.inventory, common.limit)
    ranks = [rank for rank in chosen(made.inventory, [service]) if rank.node in wanted]
    if not ranks:
        raise click.UsageError(f"{service} is not on {', '.join(common.limit) or 'a node of this shard'}")
    printer = printer_for(common.no_color)
    width = max(len(rank.node) for rank in ranks) if len(ranks) > 1 else 0
    silent = []

    def failed(node: str, error: SparkopsError) -> None:
        silent.append(node)
        click.echo(f"{node}: {safe(str(error))}", err=True)

    try:
        for entry in logs(made, ranks, lines=lines, follow=follow, failed=failed):
            if common.form == "json":
                row = {"node": entry.node, "time": entry.time, "priority": entry.priority, "text": entry.text}
                click.echo(json.dumps(row))
            else:
                _print(entry, printer, width)
    except KeyboardInterrupt:
        return 130
    return 3 if silent else 0


def _print(entry: Entry, printer: Printer, width: int) -> None:
    style = "red" if entry.priority <= 3 else "yellow" if entry.priority == 4 else ""
    for text in entry.text.split("\n"):
        head = [(f"{entry.node:{width}} ", "cyan")] if width else []
        printer.line(*head, (f"{_clock(entry.time)} ", "dim"), (text, style))


def _clock(seconds: float) -> str:
    """The time of day here; of what has no time, nothing."""
    if not seconds:
        return ""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%m-%d %H:%M:%S")
