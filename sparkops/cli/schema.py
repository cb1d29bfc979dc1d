"""`sparkops schema`: what an inventory may say, as one JSON Schema of the core and every role."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sparkops.inventory.json_schema import schema


@click.command(
    "schema",
    epilog="""\b
Examples:
  sparkops schema -o inventory.schema.json
  and as the first line of the inventory:
  # yaml-language-server: $schema=./inventory.schema.json""",
)
@click.option("-i", "--inventory", type=click.Path(path_type=Path), help="Also know the roles beside this inventory")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write to a file")
def command(inventory: Path | None, output: Path | None) -> None:
    """Print the JSON Schema of an inventory, for editors and for review."""
    text = json.dumps(schema(inventory.resolve().parent if inventory else None), indent=2) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
