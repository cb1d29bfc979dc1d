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
  sparkops plan inventory.yml --format json          the report, for a program
  sparkops plan inventory.yml -o plan.json           kept, to be carried out as it is:
  sparkops apply inventory.yml --plan plan.json""",
)
@options.inventory_argument
@options.selection
@options.jobs
@click.option(
    "-o", "--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep the plan in a file, for `apply --plan`"
)
@options.form
def command(inventory: Path, save: Path | None, **given: Any) -> int:
    """Show what an apply would change. Exit status 0: nothing, 2: something, 3: something is unknown.

    A kept plan (-o) holds neither content nor secrets.
    """
    from sparkops.cli.plan_or_drift import look

    if save == Path("-"):
        raise click.UsageError("a kept plan is a file; the report is printed without -o")
    return look("plan", inventory, options.Given(**given), save=save)
