"""Sessions on an inventory's nodes for what is done beside the road."""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.core import events
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.targets import targets


def reach(
    inventory: Inventory,
    nodes: Iterable[str],
    kinds: Iterable[str],
    connections: Connections,
    *,
    listener: events.Listener = events.silent,
    jobs: int = THREADS,
) -> Fleet:
    """A fleet of these nodes with these modules of the worker; nothing that is done over it is claimed."""
    wanted = set(nodes)
    return Fleet(
        {name: target for name, target in targets(inventory, Secrets()).items() if name in wanted},
        cluster="",
        connections=connections,
        program=bundle.kinds_bundle(kinds),
        listener=listener,
        jobs=jobs,
    )
