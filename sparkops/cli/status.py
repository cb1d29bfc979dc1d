"""`sparkops status`: nodes and services on one screen."""

from __future__ import annotations

import contextlib
import json
import time

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import printer_for
from sparkops.inventory.limit import named
from sparkops.operate.status import Status, statuses
from sparkops.reports.status import as_json, render


@click.command(
    "status",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops status
  sparkops status --watch --interval 10    anew every 10 s, until Ctrl-C
  sparkops status spark-01 qwen            nodes, groups, services; globs and !x work
  sparkops status --format json            exit status 0: all serve, 2: a service does not, 3: something is unknown""",
)
@options.nodes
@options.extra
@options.text_or_json
@click.option("--watch", is_flag=True, help="Ask again and again, until Ctrl-C; as JSON one object a line")
@click.option(
    "--interval", type=click.FloatRange(1, 3600), default=5.0, show_default=True, help="Seconds between looks"
)
@options.common
def command(common: CommonOptions, watch: bool, interval: float) -> int:
    """Show how nodes and services are: reachable, memory, GPU power and clock, running jobs; state, health by a real
    completion, tokens per second, queue, KV cache, acceptance."""
    made = context(common)
    with contextlib.closing(statuses(made, named(made.inventory, common.selected))) as looks:
        found = next(looks)
        _show(found, common, watch)
        while watch:
            try:
                time.sleep(interval)
                found = next(looks)
            except KeyboardInterrupt:
                return 130
            _show(found, common, watch)
    return found.exit_status


def _show(found: Status, common: CommonOptions, watch: bool) -> None:
    if common.form == "json":
        click.echo(json.dumps(as_json(found), indent=None if watch else 1))
        return
    if watch:
        click.clear()
    render(found, printer_for(common.no_color))
