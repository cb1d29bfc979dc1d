"""Hosts as other tools list them: what such a list has in common with an inventory, and the inventory made of one.

It must not know the formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.schema import NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host and how to reach it; what is empty or None is not said. `address` is "" where that is the name."""

    name: str
    address: str = ""
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None
    become: bool | None = None
    local: bool = False


@dataclass(frozen=True, slots=True)
class Hosts:
    """A list of hosts and the groups of their names; `left` tells what it says besides and is not taken over."""

    hosts: tuple[Host, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: tuple[Message, ...] = ()


SECRETS = ("ssh_password", "become_password")
LEFT = ("host_key", *SECRETS)
"""Of a connection, what no list of hosts is given: pinned keys, and where passwords come from."""
HEAD = """\
# yaml-language-server: $schema=./inventory.schema.json
# The hosts of {source}. Services are to be added: `sparkops recipe list`, docs/inventory.md.
"""


def declared(inventory: Inventory) -> Hosts:
    """The nodes of an inventory that are not retired."""
    nodes = [node for node in inventory.nodes.values() if node.state != "retired"]
    named = {node.name for node in nodes}
    left: dict[str, list[str]] = {}
    for node in nodes:
        for key in LEFT:
            if getattr(node.connection, key):
                left.setdefault(key, []).append(node.name)
    return Hosts(
        tuple(
            Host(
                name=node.name,
                address="" if node.host == node.name else node.host,
                user=node.connection.user,
                port=node.connection.port,
                identity_file=node.connection.identity_file,
                proxy_jump=node.connection.proxy_jump,
                become=node.connection.become,
                local=node.connection.type == "local",
            )
            for node in nodes
        ),
        {name: tuple(each for each in members if each in named) for name, members in inventory.groups.items()},
        tuple(Message.of("host-variable-not-taken", variable=key, hosts=hosts) for key, hosts in left.items()),
    )


def inventory_text(hosts: Hosts, cluster: str, source: str) -> str:
    """An inventory of these hosts, which acts as root through sudo wherever they do not say otherwise.

    Raises InventoryError where two of them would have one name.
    """
    names = _named([each.name for each in hosts.hosts])
    groups = _named(hosts.groups)
    content: dict[str, object] = {
        "version": 1,
        "cluster": cluster,
        "connection": {"become": True},
        "nodes": {names[each.name]: _node(each, names[each.name]) for each in hosts.hosts},
        "groups": {groups[name]: {"nodes": [names[each] for each in hosts.groups[name]]} for name in hosts.groups},
    }
    if not hosts.groups:
        del content["groups"]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return HEAD.format(source=source) + body.replace(": {}\n", ":\n")


def _named(names: Iterable[str]) -> dict[str, str]:
    """Each name as an inventory can have it."""
    found: dict[str, str] = {}
    for name in names:
        fitting = (
            name if re.match(NAME, name) else re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:63].strip("-._")
        )
        if not re.match(NAME, fitting) or fitting in found.values():
            raise InventoryError.of("host-name-unusable", name=name, made=fitting)
        found[name] = fitting
    return found


def _node(host: Host, name: str) -> dict[str, object]:
    address = host.address or (host.name if name != host.name else "")
    node: dict[str, object] = {"host": address} if address else {}
    connection = {
        "type": "local" if host.local else None,
        "user": host.user,
        "port": host.port,
        "identity_file": host.identity_file,
        "proxy_jump": host.proxy_jump,
        "become": False if host.become is False else None,
    }
    told = {key: value for key, value in connection.items() if value is not None}
    return {**node, "connection": told} if told else node
