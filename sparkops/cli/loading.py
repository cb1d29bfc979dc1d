"""Loading what the options of a command point to: the cluster that an inventory declares, and the way to its nodes."""

from __future__ import annotations

import threading

import click

from sparkops import library
from sparkops.cli.options import CommonOptions
from sparkops.core import events
from sparkops.library import Cluster
from sparkops.nodes.passwords import terminal
from sparkops.operate.connect import Context


def load(common: CommonOptions) -> Cluster:
    """The cluster of a command. Passwords are asked for at the terminal, where there is one. Raises InventoryError."""
    return library.load(
        common.inventory,
        extra=common.extra,
        limit=common.limit,
        roles=common.roles,
        shard=common.shard,
        jobs=common.jobs,
        ask=terminal(),
    )


def context(
    common: CommonOptions, listener: events.Listener = events.silent, stop: threading.Event | None = None
) -> Context:
    """The inventory and the way to its nodes, for commands that are no run. Raises InventoryError."""
    cluster = load(common)
    if cluster.inventory.shard is not None:
        click.echo(cluster.inventory.notices[-1].text, err=True)  # reports tell it among their notices
    return Context(
        inventory=cluster.inventory,
        connections=cluster.connections,
        listener=listener,
        jobs=cluster.jobs,
        reason=common.reason,
        stop=stop or threading.Event(),
    )
