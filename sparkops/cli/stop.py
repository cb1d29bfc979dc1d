"""`sparkops stop`: stop services for now."""

from __future__ import annotations

from typing import Any

import click

from sparkops.cli import options
from sparkops.cli.start_stop import run


@click.command(
    "stop",
    epilog="""\b
Examples:
  sparkops stop qwen
  sparkops stop --limit spark-01          all that is on this node
  sparkops stop qwen -m "the memory is needed for a build"
To keep it down, declare `state: retired` in the inventory and apply.""",
)
@options.services
def command(**given: Any) -> int:
    """Stop services on all their nodes at once. The inventory still declares them running: the next apply, or a
    restart of the node, starts them again.

    Exit status 0: they are stopped; 3: a node was silent, the others are stopped; 4: it failed; 75: a lock is busy.
    """
    return run("stop", **given)
