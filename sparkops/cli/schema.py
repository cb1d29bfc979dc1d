"""`sparkops schema`: what an inventory may say, as one JSON Schema of the core and every role."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.core import named_file
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
@click.option("-o", "--output", type=options.NewFile(), help="Write to a file; - prints it")
def command(inventory: Path | None, output: Path | None) -> None:
    """Print the JSON Schema of an inventory, for editors and for review."""
    text = json.dumps(schema(inventory.resolve().parent if inventory else None), indent=2) + "\n"
    if output is None or output == Path("-"):
        click.echo(text, nl=False)
    else:
        named_file.write(output, text)
