"""Parts of an inventory for several runs side by side: whole groups of nodes, shared out evenly.

Nodes that share a service or a fabric are a group: what is done to one of them waits for the others or is proven
between them. It must not know what a run does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from sparkops.core.graph import components
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory, Shard

Group: TypeAlias = tuple[str, ...]


def groups(inventory: Inventory) -> tuple[Group, ...]:
    """The groups of all nodes: those joined by services and fabrics, over any number of them."""
    order = {name: number for number, name in enumerate(inventory.nodes)}
    found = (sorted(each, key=order.__getitem__) for each in components(_joined(inventory)))
    return tuple(map(tuple, sorted(found, key=lambda group: order[group[0]])))


def _joined(inventory: Inventory) -> Iterator[Sequence[str]]:
    """Nodes that belong together: each alone, those of a service, and those of a fabric, declared or listed."""
    yield from ((name,) for name in inventory.nodes)
    yield from (service.nodes for service in inventory.services.values())
    fabrics: dict[tuple[str, str], list[str]] = {}
    for name in inventory.nodes:
        fabric = inventory.variables(name).get("fabric") or {}
        if fabric.get("topology") and fabric.get("subnet"):
            members = [each for each in fabric.get("members") or () if each in inventory.nodes]
            fabrics.setdefault((fabric["topology"], fabric["subnet"]), []).extend((name, *members))
    yield from fabrics.values()


def shared_out(found: Sequence[Group], parts: int) -> tuple[tuple[Group, ...], ...]:
    """The groups in so many parts: the largest first, each to the part that has the fewest nodes by then.

    Parts are empty where there are more of them than groups. The order of the groups does not matter.
    """
    made: list[list[Group]] = [[] for _ in range(parts)]
    sizes = [(0, number) for number in range(parts)]
    for group in sorted(found, key=lambda group: (-len(group), min(group))):
        size, number = sizes[0]
        made[number].append(group)
        heapq.heapreplace(sizes, (size + len(group), number))
    return tuple(map(tuple, made))


def sharded(inventory: Inventory, number: int, parts: int) -> Inventory:
    """The inventory for work on one part of its nodes, by number from 1; what it declares stays whole."""
    every = groups(inventory)
    nodes = frozenset(node for group in shared_out(every, parts)[number - 1] for node in group)
    shard = Shard(number, parts, nodes)
    about = {"shard": str(shard), "nodes": len(nodes), "all_nodes": len(inventory.nodes), "groups": len(every)}
    told = Message.of("shard-part", **about)
    return replace(inventory, shard=shard, notices=(*inventory.notices, told))
