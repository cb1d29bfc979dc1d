"""The services of an inventory, each one's line judged like a pasted one. It must not know a node."""

from __future__ import annotations

from pathlib import Path

from sparkops.core.errors import InventoryError
from sparkops.fit.fit import Fit, Question, fit_line
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.inventory.served import places
from sparkops.models.serve_line import parse


def fit_services(path: Path, service: str | None = None, question: Question | None = None) -> dict[str, Fit]:
    """The figures of every service of an inventory (or of one) by name. Raises InventoryError."""
    inventory = load(path)
    if service is not None and service not in inventory.services:
        raise InventoryError(f"there is no service {service!r}", hint=suggest(service, inventory.services))
    return fit_inventory(inventory, service, question)


def fit_inventory(inventory: Inventory, service: str | None = None, question: Question | None = None) -> dict[str, Fit]:
    """The figures of each service at its head, where its line and its engine are known. Raises InventoryError."""
    found = {}
    for place in places(inventory):
        words = place.words() if place.rank == 0 and service in (None, place.service.name) else None
        if words is None:
            continue
        if place.engine is None:
            if service is not None:
                raise InventoryError(
                    f"neither the image's tag nor the recipe says which engine {service} is",
                    where=place.service.where,
                    hint="write service.engine, like engine: 0.26.0",
                )
            continue
        found[place.service.name] = fit_line(
            parse(words, place.engine),
            place.engine,
            env=place.environment,
            name=place.model or None,
            beside=inventory.folder,
            question=question,
        )
    return found
