"""Host keys: what nodes show, what is known of them, and adding a key that a person has confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.ssh.host_keys import HostKey, Known, add
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
            yield compare(target, connections, configs.route(target).end.place)
        except SparkopsError as error:
            yield Shown(node=node, address=target.address, fault=str(error))


def compare(target: Target, connections: Connections, address: str) -> Shown:
    """What one node shows. Where keys are pinned, no other one can be added.

    Raises what keeps the node from being asked, InventoryError for a pin that is no key.
    """
    known = connections.known(target)
    shown = connections.scan(target)
    fault = _fault(shown, known, pinned=bool(target.host_keys))
    decided = bool(target.host_keys) and not fault
    return Shown(
        node=target.name,
        address=address,
        name=connections.known_as(target),
        known=tuple(key for key in shown if key in known.keys and key not in known.revoked),
        new=() if decided else tuple(key for key in shown if key not in known.keys and key not in known.revoked),
        fault=fault,
    )


def _fault(shown: Sequence[HostKey], known: Known, *, pinned: bool) -> str:
    """Why none of these keys may be added; "" where a person may confirm the new ones."""
    revoked = [(key, old) for key in shown for old in known.revoked if key == old]
    if revoked:
        key, old = revoked[0]
        return f"A REVOKED HOST KEY: {key.type} {key.fingerprint} (@revoked in {old.where}); don't log in there"
    new = [key for key in shown if key not in known.keys]
    for old in known.keys:
        if old not in shown and old.type in {key.type for key in new}:
            way = "correct host_key" if pinned else "remove that line"
            return f"THE HOST KEY HAS CHANGED: {old.type} was {old.fingerprint} ({old.where}); {way} first"
    if pinned and len(new) == len(shown):
        return "none of its keys is pinned by host_key"
    return ""


def remember(inventory: Inventory, shown: Shown) -> None:
    """Write the new keys of a node into `known_hosts` beside the inventory."""
    add(inventory.folder / "known_hosts", shown.name, shown.new)
