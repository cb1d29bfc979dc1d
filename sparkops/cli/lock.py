"""`sparkops lock`: tags become digests and branches commits, in a file beside the inventory."""

from __future__ import annotations

from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.inventory.load import load
from sparkops.inventory.lockfile import write_lock
from sparkops.inventory.secrets import Secrets
from sparkops.operate.lock import renew
from sparkops.reports.formatting import safe


@click.command(
    "lock",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops lock inventory.yml                      writes inventory.lock.yml
  sparkops apply inventory.yml --locked            refuses what the lock lacks
  sparkops drift inventory.yml --upstream          says what moved since""",
)
@options.inventory
def command(inventory: Path) -> int:
    """Pin what moves: ask registries and hubs what tags and branches stand for now. No node is asked.

    Exit status 3: something could not be asked; what was locked of it stays.
    """
    loaded = load(inventory)
    renewed = renew(loaded, Secrets())
    if renewed.changes or not loaded.lock.on_disk:
        write_lock(loaded.path, renewed.lock)
    for each in renewed.changes:
        sign = "+" if each.before is None else "-" if each.after is None else "~"
        click.echo(safe(f"{sign} {each.key}: {' → '.join(word for word in (each.before, each.after) if word)}"))
    if not renewed.changes:
        click.echo("nothing could be asked" if renewed.failed else "nothing moved", err=True)
    for error in renewed.failed.values():
        click.echo(safe(f"error: {error}"), err=True)
    return 3 if renewed.failed else 0
