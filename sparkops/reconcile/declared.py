"""What the plan says of everything that is declared: its place, and digests that tell a later run what moved. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sparkops.core.digests import digest
from sparkops.core.plan import Declared
from sparkops.core.states import Observed
from sparkops.inventory.inventory import Inventory
from sparkops.resources.resource import Resource


def declared(resources: Iterable[Resource], seen: Mapping[str, Observed], inventory: Inventory) -> tuple[Declared, ...]:
    """The resources as a report lists them, with what was `seen` of them."""
    return tuple(_declared(each, seen.get(each.id), inventory) for each in resources)


def _declared(resource: Resource, seen: Observed, inventory: Inventory) -> Declared:
    wanted = resource.desired()
    keys = None if wanted is None else {key: digest(value) for key, value in wanted.items() if key != "text"}
    found: dict[str, str] = {}
    if isinstance(seen, Mapping) and wanted is not None and keys is not None:
        there = [key for key in keys if key in seen]
        found = {key: keys[key] if seen[key] == wanted[key] else digest(seen[key]) for key in there}
    return Declared(
        id=resource.id,
        kind=resource.kind,
        name=resource.name,
        node=resource.node,
        service=resource.service,
        where=_where(resource, inventory),
        keys=keys,
        found=found,
    )


def _where(resource: Resource, inventory: Inventory) -> str:
    service = inventory.services.get(resource.service or "")
    if service is not None:
        return service.where
    node = inventory.nodes.get(resource.node)
    return node.where if node is not None else ""
