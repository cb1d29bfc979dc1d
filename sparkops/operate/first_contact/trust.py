"""Host keys: what nodes show, what is known of them, and adding a key that a person has confirmed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkops.core import host_address
from sparkops.core.errors import HostKeyError, InventoryError, SparkopsError
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import named
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.ssh.host_keys import HostKey, Known, add
from sparkops.nodes.target import Target
from sparkops.reconcile.targets import targets

FILE = "known_hosts"
"""The file beside an inventory that holds the keys which were confirmed for it."""
ADDRESS = re.compile(r"[@.:]")
"""What an address has and a name in an inventory need not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The keys of one node: `known` ones, `new` ones; `fault` says why nothing can be added."""

    node: str
    address: str
    name: str = ""
    known: tuple[HostKey, ...] = ()
    new: tuple[HostKey, ...] = ()
    fault: str = ""


def meant(words: Sequence[str], inventory: Inventory | None, folder: Path) -> list[Target]:
    """The machines that are meant: nodes, groups and services of an inventory, all of it without a word, or addresses.

    Keys of an address go where an inventory in `folder` finds them. Raises InventoryError.
    """
    if inventory is None:
        if not words:
            raise InventoryError.of("trust-nothing-named", folder=str(folder))
        return [addressed(word, folder) for word in words]
    known = {*inventory.nodes, *inventory.groups, *inventory.services}
    addresses = [word for word in words if word not in known and ADDRESS.search(word)]
    names = [word for word in words if word not in addresses]
    reachable = targets(inventory, Secrets())
    nodes = named(inventory, names) if names or not words else ()
    return [*(reachable[node] for node in nodes), *(addressed(word, folder) for word in addresses)]


def addressed(text: str, folder: Path) -> Target:
    """The machine at `[USER@]HOST[:PORT]`, by the keys that an inventory in `folder` trusts. Raises InventoryError."""
    address = host_address.parse(text)
    if address is None:
        raise InventoryError.of("node-address-malformed", text=text)
    return Target(name=text, host=address.host, user=address.user, port=address.port, known_hosts=folder / FILE)


def examine(machines: Iterable[Target], connections: Connections) -> Iterator[Shown]:
    """What each machine shows, compared with what is known; one after another, since a person reads along."""
    configs = SSHConfigs()
    for target in machines:
        if target.type == "local":
            continue
        try:
            yield compare(target, connections, configs.route(target).end.place)
        except SparkopsError as error:
            yield Shown(node=target.name, address=target.address, fault=str(error))


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


def accepted(shown: Shown, fingerprints: Sequence[str]) -> tuple[HostKey, ...]:
    """The new keys of these fingerprints. Raises HostKeyError where the machine shows none of them."""
    keys = tuple(key for key in shown.new if key.fingerprint in fingerprints)
    if not keys:
        told = [key.fingerprint for key in shown.new]
        raise HostKeyError.of("host-key-other-than-accepted", where=shown.node, accepted=list(fingerprints), shown=told)
    return keys


def remember(folder: Path, shown: Shown, keys: Sequence[HostKey]) -> Path:
    """Write keys of a machine into the file that an inventory in `folder` reads; answers which."""
    add(folder / FILE, shown.name, keys)
    return folder / FILE
