"""`sparkops trust`: show the host keys of nodes, and add them to the project's known_hosts."""

from __future__ import annotations

import click

from sparkops.cli import options
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import passwords_for
from sparkops.cli.prompts import confirm
from sparkops.inventory.limit import named
from sparkops.inventory.load import load
from sparkops.operate.trust import examine, remember


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
@options.common
def command(common: CommonOptions, yes: bool) -> int:
    """Show the host keys of nodes and add the new ones to `known_hosts` beside the inventory.

    Compare the fingerprints with what the machine itself prints (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`).
    A key that differs from a known one is never replaced here.
    """
    loaded = load(common.inventory)
    status = 0
    for found in examine(loaded, named(loaded, common.selected), passwords_for(loaded)):
        click.echo(f"{found.node} ({found.address})")
        for key in found.known:
            click.echo(f"  known  {key.type:20} {key.fingerprint}")
        for key in found.new:
            click.echo(f"  new    {key.type:20} {key.fingerprint}")
        if found.fault:
            click.echo(f"  {found.fault}", err=True)
            status = 3
        elif found.new and confirm(f"  Is this the key of {found.node}?", yes, "host-key-unconfirmed", node=found.node):
            remember(loaded, found)
            click.echo(f"  added to {loaded.folder / 'known_hosts'}")
    return status
