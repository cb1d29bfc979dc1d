"""`sparkops status`: nodes and services on one screen."""

from __future__ import annotations

import json

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import printer_for
from sparkops.inventory.limit import named
from sparkops.operate.status import status
from sparkops.reports.status import as_json, render


@click.command(
    "status",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops status
  sparkops status spark-01 qwen            nodes, groups, services; globs and !x work
  sparkops status --format json            exit status 0: all serve, 2: a service does not, 3: something is unknown""",
)
@options.nodes
@options.extra
@options.text_or_json
@options.common
def command(common: CommonOptions) -> int:
    """Show how nodes and services are: reachable, memory, GPU, running jobs; state, health by a real completion."""
    made = context(common)
    found = status(made, named(made.inventory, common.selected))
    if common.form == "json":
        click.echo(json.dumps(as_json(found), indent=1))
    else:
        render(found, printer_for(common.no_color))
    return found.exit_status
