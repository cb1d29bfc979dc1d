"""Sessions on an inventory's nodes for commands that are no run."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sparkops.core import events
from sparkops.core.report import Command
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.targets import targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a command needs to talk to nodes. `jobs`: nodes at once; `reason`: why, for the nodes' history.

    `stop` is set by the first Ctrl-C.
    """

    inventory: Inventory
    connections: Connections
    listener: events.Listener = events.silent
    jobs: int = THREADS
    reason: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    def options(self, command: Command, title: str, **more: Any) -> RunOptions:
        """What a run of such a command goes by."""
        return RunOptions(
            command=command,
            inventory=self.inventory,
            connections=self.connections,
            secrets=Secrets(),
            title=title,
            reason=self.reason,
            listener=self.listener,
            jobs=self.jobs,
            stop=self.stop,
            **more,
        )


def reach(context: Context, nodes: Iterable[str], kinds: Iterable[str]) -> Fleet:
    """A fleet of these nodes with these modules of the worker; nothing that is done over it is claimed."""
    wanted = set(nodes)
    return Fleet(
        {name: target for name, target in targets(context.inventory, Secrets()).items() if name in wanted},
        cluster="",
        connections=context.connections,
        program=bundle.kinds_bundle(kinds),
        listener=context.listener,
        jobs=context.jobs,
    )
