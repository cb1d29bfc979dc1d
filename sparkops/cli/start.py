"""`sparkops start`: start services and wait for their health."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli import options


@click.command(
    "start",
    epilog="""\b
Examples:
  sparkops start qwen
  sparkops start qwen small -m "after the memory was changed"
  sparkops start qwen --no-wait              not until it answers""",
)
@click.argument("services", nargs=-1, required=True)
@options.inventory_option
@options.reason
@click.option("--no-wait", is_flag=True, help="Only until systemd has the new process, not until it answers")
@options.jobs
@options.text_or_json
def command(services: tuple[str, ...], inventory: Path, no_wait: bool, **given: Any) -> int:
    """Start services and wait until a real completion is answered. What runs and answers is left alone.

    Exit status 0: they answer; 3: a node was silent; 4: it failed, with the engine's last lines; 75: a lock is busy.
    """
    from sparkops.cli.switching import run

    return run("start", services, inventory, wait=not no_wait, **given)
