"""Sessions on an inventory's nodes for what is done beside the road; and who it is that does it."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable
from typing import Any

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


def actor(command: str) -> dict[str, Any]:
    """Who does it, from where, and what: as locks name their holder and a node's history its runs."""
    return {"who": getpass.getuser(), "from": socket.gethostname(), "pid": os.getpid(), "command": command}
