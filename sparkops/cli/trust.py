"""`sparkops trust`: look at the host keys that nodes show, and add them to the project's known_hosts."""

from __future__ import annotations

from pathlib import Path

import click

from sparkops.cli import options


@click.command(
    "trust",
    epilog="""\b
Examples:
  sparkops trust                       all nodes of inventory.yml
  sparkops trust spark-02 -i lab.yml
  sparkops trust spark-02 --yes        without a terminal, after comparing the fingerprint elsewhere""",
)
@click.argument("nodes", nargs=-1)
@options.inventory_option
@options.limit
@click.option("-y", "--yes", is_flag=True, help="Add without asking")
def command(nodes: tuple[str, ...], inventory: Path, limit: tuple[str, ...], yes: bool) -> int:
    """Show the host keys of nodes and add the new ones to `known_hosts` beside the inventory.

    Compare the fingerprints with what the machine itself prints (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`).
    A key that differs from a known one is never replaced here.
    """
    from sparkops.cli.printing import passwords_for
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.operate.trust import examine, remember

    loaded = load(inventory)
    chosen = named(loaded, (*nodes, *limit))
    status = 0
    for found in examine(loaded, chosen, passwords_for(loaded)):
        click.echo(f"{found.node} ({found.address})")
        for key in found.known:
            click.echo(f"  known  {key.type:20} {key.fingerprint}")
        for key in found.new:
            click.echo(f"  new    {key.type:20} {key.fingerprint}")
        if found.fault:
            click.echo(f"  {found.fault}", err=True)
            status = 3
        elif found.new and _agreed(found.node, yes):
            remember(loaded, found)
            click.echo(f"  added to {loaded.folder / 'known_hosts'}")
    return status


def _agreed(node: str, yes: bool) -> bool:
    if yes:
        return True
    from sparkops.core.errors import InventoryError

    if not options.is_terminal():
        raise InventoryError(
            "there is no terminal to ask at", hint="compare the fingerprint elsewhere, then give --yes"
        )
    return click.confirm(f"  Is this the key of {node}?")
