"""What the plan says of everything that is declared: its place, and digests that tell a later run what moved. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sparkops.core.plan import Declared, plain
from sparkops.core.secrets import Secret
from sparkops.core.states import Pending, Unknown
from sparkops.inventory.inventory import Inventory
from sparkops.resources.resource import Resource

SYMBOLS = ("declared", "current")
"""Values by which a kind says "as it is declared" without naming it: of secrets, and of what other resources decide."""
DIGITS = 16


def declared(resources: Iterable[Resource], inventory: Inventory) -> tuple[Declared, ...]:
    """The resources as a report lists them."""
    return tuple(
        Declared(
            id=each.id,
            kind=each.kind,
            name=each.name,
            node=each.node,
            service=each.service,
            where=_where(each, inventory),
            keys=_keys(each.desired()),
        )
        for each in resources
    )


def _where(resource: Resource, inventory: Inventory) -> str:
    service = inventory.services.get(resource.service or "")
    if service is not None:
        return service.where
    node = inventory.nodes.get(resource.node)
    return node.where if node is not None else ""


def _keys(state: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if state is None else {key: _digest(value) for key, value in state.items() if key != "text"}


def _digest(value: Any) -> str:
    if value in SYMBOLS or _unnamed(value):
        return ""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _unnamed(value: Any) -> bool:
    """Whether any part of the value is printed as something else than it is."""
    if isinstance(value, Mapping):
        return any(_unnamed(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return any(_unnamed(each) for each in value)
    return isinstance(value, (Secret, Pending, Unknown))
