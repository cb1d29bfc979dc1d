"""Loading what the options of a command point to: the cluster that an inventory declares, and the way to its nodes."""

from __future__ import annotations

from collections.abc import Sequence

from sparkops import library
from sparkops.cli.options import CommonOptions
from sparkops.core import events
from sparkops.library import Cluster
from sparkops.nodes.passwords import terminal
from sparkops.operate.connect import Context


def load(common: CommonOptions, limit: Sequence[str] | None = None, roles: Sequence[str] | None = None) -> Cluster:
    """The cluster of a command, with --limit and --role unless others are given. Passwords are asked for at the
    terminal, where there is one. Raises InventoryError."""
    return library.load(
        common.inventory,
        extra=common.extra,
        limit=common.limit if limit is None else limit,
        roles=common.roles if roles is None else roles,
        jobs=common.jobs,
        ask=terminal(),
    )


def context(common: CommonOptions, listener: events.Listener = events.silent) -> Context:
    """The inventory and the way to its nodes, for commands that are no run. Raises InventoryError."""
    cluster = load(common)
    return Context(inventory=cluster.inventory, connections=cluster.connections, listener=listener, jobs=cluster.jobs)
