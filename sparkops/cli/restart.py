"""`sparkops restart`: restart services and wait for their health."""

from __future__ import annotations

from typing import Any

import click

from sparkops.cli import options
from sparkops.cli.start_stop import no_wait, run


@click.command(
    "restart",
    epilog="""\b
Examples:
  sparkops restart qwen
  sparkops restart --limit spark-01          all that is on this node
  sparkops restart qwen small -m "after the memory was changed"
  sparkops restart qwen --no-wait              not until it answers""",
)
@options.services
@no_wait
def command(no_wait: bool, **given: Any) -> int:
    """Restart services and wait until a real completion is answered. All nodes of a service are restarted at once.

    Exit status 0: they answer; 3: a node was silent; 4: it failed, with the engine's last lines; 75: a lock is busy.
    """
    return run("restart", wait=not no_wait, **given)
