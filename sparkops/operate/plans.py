"""Saved plans as files: written whole or not at all, read and checked before anything else happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import sparkops
from sparkops.compile.compiler import Compiled
from sparkops.core import named_file
from sparkops.core.errors import InventoryError
from sparkops.core.plan import Plan
from sparkops.inventory.inventory import Inventory
from sparkops.reconcile import plan_file
from sparkops.reconcile.inputs import inputs
from sparkops.reconcile.plan_file import SavedPlan

LIMIT = 64 << 20
"""Bytes of a plan file that are read."""
Extra = Sequence[tuple[str, str]]


def save(
    path: Path,
    plan: Plan,
    inventory: Inventory,
    compiled: Compiled,
    *,
    extra: Extra,
    limit: Sequence[str],
    roles: Sequence[str],
) -> None:
    """Write a plan to a file, replaced as a whole."""
    shard = inventory.shard
    told = {
        "schema": plan_file.FORMAT,
        "sparkops": sparkops.__version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cluster": inventory.cluster,
        "selection": {
            "limit": list(limit),
            "roles": list(roles),
            "shard": [shard.number, shard.of] if shard is not None else None,
        },
        "inputs": inputs(inventory, compiled.resources, extra),
        "steps": plan_file.steps_of(plan),
    }
    named_file.write(path, SavedPlan(told).text)


def load(path: Path) -> SavedPlan:
    """The plan in a file. Raises InventoryError for anything else, OSError where it can't be read."""
    with path.open("rb") as file:
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise InventoryError.of("plan-file-too-large", where=str(path), limit=LIMIT >> 20)
    return plan_file.read(content, str(path))


def refuse_other(plan: SavedPlan, inventory: Inventory, compiled: Compiled, extra: Extra) -> None:
    """Raises InventoryError or Stale where the inventory, or what it is made from, is not that of the plan."""
    plan.refuse_other_inputs(inventory.cluster, sparkops.__version__, inputs(inventory, compiled.resources, extra))
