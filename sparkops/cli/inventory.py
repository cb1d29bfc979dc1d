"""`sparkops inventory show`: the merged variables of a node, and where each came from."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.inventory.load import load
from sparkops.inventory.show import show as origins
from sparkops.inventory.show import values


@click.group("inventory")
def command() -> None:
    """Look into the inventory, offline; secrets stay references."""


@command.command(
    "show",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops inventory show spark-01
  sparkops inventory show spark-01 --service qwen --origin""",
)
@click.argument("node")
@options.inventory
@click.option("--service", help="As this service on the node sees it")
@click.option("--origin", is_flag=True, help="Say for each value where it came from")
@options.only_form
@options.extra
def show(
    node: str, inventory: Path, service: str | None, origin: bool, form: str, extra: tuple[tuple[str, str], ...]
) -> None:
    """Print the merged variables of a node, or of a service on it."""
    loaded = load(inventory, extra=extra)
    if not origin:
        found = values(loaded, node, service)
        text = json.dumps(found, indent=2) if form == "json" else yaml.safe_dump(found, sort_keys=False).rstrip()
        click.echo(text)
        return
    lines = origins(loaded, node, service)
    if form == "json":
        rows = [{"path": each.path, "value": each.value, "layer": each.layer, "where": each.where} for each in lines]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(each.path) for each in lines), default=0)
    for each in lines:
        click.echo(f"{each.path:{width}}  {json.dumps(each.value)}  # {each.layer}, {each.where}")
