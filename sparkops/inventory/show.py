"""What `inventory show` prints, as values: the merged variables of a node, and where each came from.

Secrets stay references; nothing here resolves them or prints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.merge import leaves, origin


@dataclass(frozen=True, slots=True)
class Shown:
    """One merged variable: its dotted path, its plain value, the layer that it came from and the place in its file."""

    path: str
    value: object
    layer: str
    where: str


def show(inventory: Inventory, node: str, service: str | None = None) -> tuple[Shown, ...]:
    """Every variable that something sets for a node, or for a service on it, with its origin, sorted by path."""
    _known(inventory, node, service)
    layers = inventory.layers(node, service)
    found = []
    for path, value in leaves(inventory.variables(node, service)):
        source = origin(layers, path)
        if value is None or source is None:
            continue
        found.append(Shown(".".join(path), plain(value), source.name, source.where(path)))
    return tuple(sorted(found, key=lambda shown: shown.path))


def values(inventory: Inventory, node: str, service: str | None = None) -> dict[str, object]:
    """The merged variables as plain values fit for YAML and JSON, secrets as `!env NAME`."""
    _known(inventory, node, service)
    shown: dict[str, object] = plain(inventory.variables(node, service))
    return {name: space for name, space in shown.items() if space}


def plain(value: object) -> Any:
    """A value with its references to secrets as text."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def _known(inventory: Inventory, node: str, service: str | None) -> None:
    if node not in inventory.nodes:
        raise InventoryError.of("node-not-found", node=node, suggestion=suggest(node, inventory.nodes))
    if service is None:
        return
    if service not in inventory.services:
        raise InventoryError.of("service-not-found", service=service, suggestion=suggest(service, inventory.services))
    if node not in inventory.services[service].nodes:
        on = ", ".join(inventory.services[service].nodes)
        raise InventoryError.of("service-not-on-node", service=service, node=node, on=on)
