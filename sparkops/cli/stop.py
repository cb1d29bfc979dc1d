"""`sparkops stop`: stop services for now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli import options


@click.command(
    "stop",
    epilog="""\b
Examples:
  sparkops stop qwen
  sparkops stop qwen -m "the memory is needed for a build"
To keep it down, declare `state: retired` in the inventory and apply.""",
)
@click.argument("services", nargs=-1, required=True)
@options.inventory_option
@options.reason
@options.jobs
@options.text_or_json
def command(services: tuple[str, ...], inventory: Path, **given: Any) -> int:
    """Stop services on all their nodes at once. The inventory still declares them running: the next apply, or a
    restart of the node, starts them again.

    Exit status 0: they are stopped; 3: a node was silent, the others are stopped; 4: it failed; 75: a lock is busy.
    """
    from sparkops.cli.switching import run

    return run("stop", services, inventory, **given)
