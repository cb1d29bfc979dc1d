"""Loading what the options of a command point to: the inventory, its resources, the way to its nodes.

lint, fit, what asks registries and what compiles roles are imported by the functions that need them: `drift` needs
none of the first three, which take 0.17 s of CPU time to import, and `exec` none at all.
"""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import TYPE_CHECKING, Literal

import click

from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import passwords_for
from sparkops.core import events
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load as read
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.operate.connect import Context

if TYPE_CHECKING:
    from sparkops.compile.compiler import Compiled


def context(common: CommonOptions, listener: events.Listener = events.silent) -> Context:
    """The inventory and the way to its nodes. Raises InventoryError."""
    inventory = read(common.inventory, extra=common.extra, shard=common.shard)
    if inventory.shard is not None:
        click.echo(inventory.notices[-1].text, err=True)  # reports tell it among their notices
    return Context(
        inventory=inventory,
        connections=Connections(passwords_for(inventory)),
        listener=listener,
        jobs=common.jobs,
    )


def load(
    common: CommonOptions, lock: Literal["as-is", "add", "whole", "upstream"] = "as-is"
) -> tuple[Inventory, Compiled, Secrets]:
    """The inventory and what it means for the selected nodes and roles. Raises InventoryError.

    `lock`: add what its lock file lacks, refuse where it is not whole, or say what moved upstream since.
    """
    from sparkops.compile.compiler import compile_inventory

    secrets = Secrets()
    loaded = read(common.inventory, extra=common.extra, shard=common.shard)
    if lock != "as-is":
        loaded = _locked(loaded, secrets, lock, common.limit)
    compiled = compile_inventory(loaded, limit=common.limit or None, roles=common.roles or None, secrets=secrets)
    return loaded, compiled, secrets


def _locked(loaded: Inventory, secrets: Secrets, lock: str, limit: tuple[str, ...]) -> Inventory:
    from sparkops.operate.lock import complete, upstream

    if lock == "upstream":
        told = upstream(loaded, secrets)
    else:
        loaded, told = complete(loaded, secrets, add=lock == "add", limit=limit)
    return dataclasses.replace(loaded, notices=(*loaded.notices, *told))


def refuse_errors(inventory: Inventory, nodes: tuple[str, ...], roles: tuple[str, ...]) -> None:
    """What lint and fit know to fail on these nodes is not tried. Raises LintError; silent without a service."""
    from sparkops.fit import services
    from sparkops.lint.declared import refuse

    if not roles or "service" in roles:
        refuse(inventory, date.today(), nodes)
        services.refuse(inventory, date.today(), nodes)
