"""`sparkops trust`: show the host keys of machines, and add them to the project's known_hosts."""

from __future__ import annotations

import click

from sparkops.cli import host_keys, options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.options import CommonOptions
from sparkops.inventory.load import load
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords, terminal
from sparkops.operate.first_contact.trust import examine, meant, remember


@click.command(
    "trust",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops trust                            all nodes of inventory.yml
  sparkops trust spark-02 -i lab.yml
  sparkops trust nvidia@192.168.1.11        before there is an inventory; for inventories in this folder
  sparkops trust spark-02 --accept-key SHA256:…   without a terminal: only the key of this fingerprint
  sparkops trust spark-02 --yes             without a question, after comparing the fingerprint elsewhere""",
)
@click.argument("nodes", nargs=-1, metavar="[NODE|GROUP|SERVICE|[USER@]HOST[:PORT]]...")
@options.inventory
@options.limit
@host_keys.option
@click.option("-y", "--yes", is_flag=True, help="Add without asking")
@options.common
def command(common: CommonOptions, fingerprints: tuple[str, ...], yes: bool) -> int:
    """Show the host keys of machines and add the new ones to `known_hosts` beside the inventory.

    A machine is a node of the inventory, or an address: then no inventory is needed. Compare the fingerprints with
    what the machine itself prints (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`). A key that differs from a known
    one is never replaced here.
    """
    folder = common.inventory.parent
    declared = load(common.inventory, shard=common.shard) if common.inventory.exists() else None
    machines = meant(common.selected, declared, folder)
    status = 0
    for found in examine(machines, Connections(Passwords(terminal(), [each.name for each in machines]))):
        host_keys.tell(found)
        if found.fault:
            click.echo(f"  {found.fault}", err=True)
            status = 3
        elif found.new and (keys := host_keys.vouched(found, fingerprints, yes=yes)):
            click.echo(f"  added to {remember(folder, found, keys)}")
    return status
