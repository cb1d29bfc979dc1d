"""`sparkops restart`: restart services and wait for their health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli import options


@click.command(
    "restart",
    epilog="""\b
Examples:
  sparkops restart qwen
  sparkops restart qwen small -m "after the memory was changed"
  sparkops restart qwen --no-wait              not until it answers""",
)
@click.argument("services", nargs=-1, required=True)
@options.inventory_option
@options.reason
@click.option("--no-wait", is_flag=True, help="Only until systemd has the new process, not until it answers")
@options.jobs
@options.text_or_json
def command(services: tuple[str, ...], inventory: Path, no_wait: bool, **given: Any) -> int:
    """Restart services and wait until a real completion is answered. All nodes of a service are restarted at once.

    Exit status 0: they answer; 3: a node was silent; 4: it failed, with the engine's last lines; 75: a lock is busy.
    """
    from sparkops.cli.switching import run

    return run("restart", services, inventory, wait=not no_wait, **given)
