"""Host keys: what nodes show, what is known of them, and remembering a key that a person has vouched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.hostkeys import HostKey, KnownHosts, add, host_name
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.sshconfig import SSHConfigs
from sparkops.nodes.target import Target
from sparkops.reconcile.targets import targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The keys of one node: `known` ones, `new` ones; `fault` says why nothing can be added."""

    node: str
    address: str
    name: str = ""
    known: tuple[HostKey, ...] = ()
    new: tuple[HostKey, ...] = ()
    fault: str = ""


def examine(inventory: Inventory, nodes: Sequence[str], passwords: Passwords) -> Iterator[Shown]:
    """What each node shows, compared with what is known; one after another, since a person reads along."""
    connections, configs = Connections(passwords), SSHConfigs()
    reachable = targets(inventory, Secrets())
    for node in nodes:
        target = reachable[node]
        if target.type == "local":
            continue
        try:
            yield _one(target, connections, configs)
        except SparkopsError as error:
            yield Shown(node=node, address=target.address, fault=str(error))


def _one(target: Target, connections: Connections, configs: SSHConfigs) -> Shown:
    end = configs.route(target).end
    name = end.key_name or host_name(end.host, end.port)
    files = [*([target.known_hosts] if target.known_hosts else []), *end.known_hosts]
    known = KnownHosts(files).known(name).keys
    shown = connections.scan(target)
    blobs, types = {key.blob for key in known}, {key.type for key in known}
    new = tuple(key for key in shown if key.blob not in blobs)
    other = [key for key in new if key.type in types]
    fault = ""
    if other:
        old = next(key for key in known if key.type == other[0].type)
        fault = f"THE HOST KEY HAS CHANGED: {old.type} was {old.fingerprint} ({old.where}); remove that line first"
    return Shown(
        node=target.name,
        address=end.place,
        name=name,
        known=tuple(key for key in shown if key.blob in blobs),
        new=new,
        fault=fault,
    )


def remember(inventory: Inventory, shown: Shown) -> None:
    """Write the new keys of a node into `known_hosts` beside the inventory."""
    add(inventory.folder / "known_hosts", shown.name, shown.new)
