"""`sparkops plan`: the road, left before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli import options


@click.command(
    "plan",
    epilog="""\b
Examples:
  sparkops plan inventory.yml
  sparkops plan inventory.yml --limit spark-02
  sparkops plan inventory.yml --format json -o plan.json""",
)
@options.inventory_argument
@options.selection
@options.jobs
@options.output
def command(inventory: Path, **given: Any) -> int:
    """Show what an apply would change. Exit status 0: nothing, 2: something, 3: something is unknown."""
    from sparkops.cli.looking import look

    return look("plan", inventory, **given)
