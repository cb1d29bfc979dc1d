"""`sparkops render`: the exact files, unit and argument list of a node, offline."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.inventory.load import load
from sparkops.operate.render import render
from sparkops.reports.formatting import safe


@click.command(
    "render",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops render spark-01
  sparkops render spark-01 qwen
  sparkops render spark-01 qwen -e service.serve.max-num-seqs=8""",
)
@click.argument("node")
@click.argument("service", required=False)
@options.inventory
@options.only_form
@options.extra
def command(node: str, service: str | None, inventory: Path, form: str, extra: tuple[tuple[str, str], ...]) -> None:
    """Print what a node would have, or what belongs to one service on it. Secrets show as ***."""
    texts = list(render(load(inventory, extra=extra), node, service))
    if form == "json":
        click.echo(
            json.dumps([{"title": each.title, "where": each.where, "text": each.text} for each in texts], indent=1)
        )
        return
    for each in texts:
        click.echo(f"# {each.title}  ({each.where})")
        click.echo(safe(each.text.rstrip("\n")) + "\n")
