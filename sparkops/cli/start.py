"""`sparkops start`: start services and wait for their health."""

from __future__ import annotations

from typing import Any

import click

from sparkops.cli import options
from sparkops.cli.start_stop import no_wait, run


@click.command(
    "start",
    epilog="""\b
Examples:
  sparkops start qwen
  sparkops start --limit spark-01          all that is on this node
  sparkops start qwen small -m "after the memory was changed"
  sparkops start qwen --no-wait              not until it answers""",
)
@options.services
@no_wait
def command(no_wait: bool, **given: Any) -> int:
    """Start services and wait until a real completion is answered. What runs and answers is left alone.

    Exit status 0: they answer; 3: a node was silent; 4: it failed, with the engine's last lines; 75: a lock is busy.
    """
    return run("start", wait=not no_wait, **given)
