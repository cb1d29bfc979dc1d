"""`sparkops init`: a first inventory, filled in with what given hosts say."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.states import Unknown
from sparkops.inventory.json_schema import schema
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords, terminal
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.target import Target
from sparkops.operate.facts import facts
from sparkops.operate.init import Found, inventory, node_name


@click.command(
    "init",
    epilog="""\b
Examples:
  sparkops init                                   writes inventory.yml and inventory.schema.json
  sparkops init --from-host nvidia@192.168.1.11   asks the machine and fills in what it says
  sparkops init -o -                              prints it""",
)
@click.option("-o", "--output", default="inventory.yml", show_default=True, help="The file to write; - prints it")
@click.option("--from-host", "hosts", multiple=True, help="[USER@]HOST[:PORT] to ask (repeatable)")
@click.option("--cluster", default="attic", show_default=True, help="The cluster's name")
def command(output: str, hosts: tuple[str, ...], cluster: str) -> int:
    """Write a commented inventory to start from. An existing file is never overwritten."""
    path = Path(output)
    if output != "-" and path.exists():
        raise InventoryError.of("output-exists", where=output)
    text = inventory([_ask(each) for each in hosts], cluster)
    if output == "-":
        click.echo(text, nl=False)
        return 0
    path.write_text(text, encoding="utf-8")
    beside = path.with_name("inventory.schema.json")
    beside.write_text(json.dumps(schema(), indent=2) + "\n", encoding="utf-8")
    click.echo(f"wrote {path} and {beside} (the schema, for your editor)")
    click.echo(f"next: look through it, then `sparkops plan {path}`")
    return 0


def target_of(text: str) -> Target:
    """The node at `[USER@]HOST[:PORT]`. Raises InventoryError."""
    user, _, place = text.rpartition("@")
    host, colon, port = place.partition(":")
    if colon and not port.isdigit():
        raise InventoryError.of("node-address-malformed", text=text)
    return Target(name=node_name(host), host=host, user=user or None, port=int(port) if port else None)


def _ask(text: str) -> Found:
    """What a host says. Its key must be known to SSH already; it is then pinned in the inventory."""
    target = target_of(text)
    connections = Connections(Passwords(terminal(), (target.name,)))
    answer = facts({target.name: target}, connections, groups=("os", "gpu", "memory"))[target.name]
    if isinstance(answer, SparkopsError):
        raise answer
    keys = connections.scan(target)
    entered_as = SSHConfigs().route(target).end.user
    return Found(
        name=target.name,
        host=target.host,
        user=entered_as,
        port=target.port,
        host_key=keys[0].line if keys else "",
        facts={} if isinstance(answer, Unknown) else answer,
    )
