"""`sparkops discover`: propose nodes, fabric and topology from what hosts say."""

from __future__ import annotations

import re
from dataclasses import replace

import click
import yaml

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, show_json
from sparkops.core.errors import InventoryError
from sparkops.core.wording import encoded
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords, terminal
from sparkops.operate.fabric.discover import discover
from sparkops.operate.first_contact.trust import addressed
from sparkops.reconcile.targets import targets
from sparkops.reports import schemas
from sparkops.reports.formatting import safe


@click.command(
    "discover",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops discover                              the nodes of inventory.yml
  sparkops discover spark-01 spark-02            names of ~/.ssh/config
  sparkops discover nvidia@192.168.1.11 nvidia@192.168.1.12""",
)
@click.argument("hosts", nargs=-1, metavar="[[USER@]HOST[:PORT]…]")
@options.inventory
@options.jobs
@options.only_form
@options.common
def command(common: CommonOptions, hosts: tuple[str, ...]) -> int:
    """Propose nodes, fabric and topology from what these hosts say, without hosts those of the inventory.

    Nothing is changed, and no address is asked but theirs: there is no scan. What cannot be told from what they say is
    noted; look through the proposal before you put it into an inventory.

    Exit status 0: every host answered, 3: not every one.
    """
    if hosts:
        machines = [addressed(each, common.inventory.parent) for each in hosts]
        names = [_name(each.host) for each in machines]
        found = {name: replace(each, name=name) for name, each in zip(names, machines, strict=True)}
        if len(found) < len(hosts):
            raise InventoryError.of("discover-name-twice", names=names)
        told = discover(found, Connections(Passwords(terminal(), tuple(found))), jobs=common.jobs)
    else:
        made = context(common)
        told = discover(targets(made.inventory, Secrets()), made.connections, jobs=common.jobs)
    if common.form == "json":
        found_out = {"inventory": told.inventory(), "notes": told.proposal.notes, "unreachable": told.silent}
        show_json({"schema": schemas.DISCOVER, **encoded(found_out)})
    else:
        for note in told.proposal.notes:
            click.echo(safe(f"# {note.full}"))
        click.echo(safe(yaml.safe_dump(told.inventory(), sort_keys=False, allow_unicode=True)).rstrip())
        echo_unreachable(told.silent)
    return 3 if told.silent else 0


def _name(host: str) -> str:
    """The name of a node by its host: the first label of a name, an address with dashes."""
    numeric = host.replace(".", "").isdecimal() or ":" in host
    return "node-" + re.sub(r"[.:]+", "-", host) if numeric else host.partition(".")[0]
