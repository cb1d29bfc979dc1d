"""`sparkops drift`: a plan that nobody runs, as a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli import options


@click.command(
    "drift",
    epilog="""\b
Examples:
  sparkops drift inventory.yml
  sparkops drift inventory.yml --format json      for a timer or CI: exit status 0, 2 or 3
  sparkops drift inventory.yml --limit qwen       one service with all its nodes""",
)
@options.inventory_argument
@options.selection
@options.jobs
@options.output
@click.option("--upstream", is_flag=True, help="Also ask registries and hubs what moved since it was locked")
def command(inventory: Path, upstream: bool, **given: Any) -> int:
    """Report what differs from the declaration. Exit status 0: nothing, 2: something, 3: something is unknown."""
    from sparkops.cli.plan_or_drift import look

    return look("drift", inventory, options.Given(**given), upstream=upstream)
