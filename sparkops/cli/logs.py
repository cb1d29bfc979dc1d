"""`sparkops logs`: what a service said on its nodes."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.core.errors import SparkopsError


@click.command(
    "logs",
    epilog="""\b
Examples:
  sparkops logs qwen
  sparkops logs qwen -f -n 20              and what comes, until Ctrl-C
  sparkops logs qwen --limit spark-02
  sparkops logs qwen --format json         one JSON object a line""",
)
@click.argument("service")
@options.inventory_option
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
def command(
    service: str,
    inventory: Path,
    limit: tuple[str, ...],
    extra: tuple[tuple[str, str], ...],
    follow: bool,
    lines: int,
    form: str,
    no_color: bool,
) -> int:
    """Print what the units of a service said, several nodes by time. Exit status 3: a node could not be asked."""
    from sparkops.cli.printing import console, passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.logs import logs
    from sparkops.operate.services import chosen
    from sparkops.reports.formatting import safe
    from sparkops.reports.text import Printer

    loaded = load(inventory, extra=extra)
    wanted = named(loaded, limit)
    ranks = [rank for rank in chosen(loaded, [service]) if rank.node in wanted]
    if not ranks:
        raise click.UsageError(f"{service} is not on {', '.join(limit)}")
    printer = Printer(console(no_color))
    width = max(len(rank.node) for rank in ranks) if len(ranks) > 1 else 0
    silent = []

    def failed(node: str, error: SparkopsError) -> None:
        silent.append(node)
        click.echo(f"{node}: {safe(str(error))}", err=True)

    try:
        for entry in logs(loaded, ranks, Connections(passwords_for(loaded)), lines=lines, follow=follow, failed=failed):
            if form == "json":
                click.echo(json.dumps(entry.as_json()))
                continue
            style = "red" if entry.priority <= 3 else "yellow" if entry.priority == 4 else ""
            for text in entry.text.split("\n"):
                head = [(f"{entry.node:{width}} ", "cyan")] if width else []
                printer.line(*head, (f"{_clock(entry.time)} ", "dim"), (text, style))
    except KeyboardInterrupt:
        return 130
    return 3 if silent else 0


def _clock(seconds: float) -> str:
    """The time of day here; of what has no time, nothing."""
    if not seconds:
        return ""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%m-%d %H:%M:%S")
