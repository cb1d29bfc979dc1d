"""From which hub, with which token and at which revision an inventory declares a repository."""

from __future__ import annotations

from pathlib import Path

from sparkops.checkpoints.hub import Hub
from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.inventory.load import load
from sparkops.inventory.secrets import Secrets
from sparkops.resources.checkpoint import OfRepository


def declared_hub(inventory: Path, repository: str) -> tuple[Hub, str]:
    """The hub and the revision (a commit where it is pinned) of a repository that a service declares.

    Of one that none declares: the only hub of the inventory, and "". Raises InventoryError, SecretError.
    """
    resources = compile_inventory(load(inventory), roles=["checkpoint"], secrets=Secrets()).resources
    declared = [each for each in resources if isinstance(each, OfRepository)]
    for each in declared:
        if each.repository == repository:
            return each.hub, each.pinned or each.revision
    hubs = {each.hub.endpoint: each.hub for each in declared}
    if len(hubs) != 1:
        raise InventoryError.of(
            "checkpoint-hub-ambiguous", where=str(inventory), repository=repository, hubs=sorted(hubs) or ["none"]
        )
    return next(iter(hubs.values())), ""
