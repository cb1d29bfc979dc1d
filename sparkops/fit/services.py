"""The services of an inventory, each one's line judged like a pasted one. It must not know a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path

from sparkops.core.errors import InventoryError, LintError
from sparkops.fit.fit import Fit, Question, Unjudged, fit_line, verdict
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.inventory.served import places
from sparkops.models.serve_line import parse

ACCEPTED_AS = "weights-do-not-fit"
"""The id under which an inventory's `accept` lets a service through that `refuse` would stop."""


def fit_services(path: Path, service: str | None = None, question: Question | None = None) -> dict[str, Fit | Unjudged]:
    """The figures of every service of an inventory (or of one) by name. Raises InventoryError."""
    inventory = load(path)
    if service is not None and service not in inventory.services:
        raise InventoryError(f"there is no service {service!r}", hint=suggest(service, inventory.services))
    found = fit_inventory(inventory, service, question)
    if service is None:
        return found
    only = found.get(service)
    if only is None:
        raise InventoryError(
            f"{service} has no line to judge: it is retired, uses no GPU or runs no vLLM",
            where=inventory.services[service].where,
            hint="name another service, or give the line with --serve",
        )
    if isinstance(only, Unjudged):
        raise InventoryError(only.reason, where=inventory.services[service].where, hint=ENGINE)
    return found


ENGINE = "write service.engine, like engine: 0.26.0"


def fit_inventory(
    inventory: Inventory, service: str | None = None, question: Question | None = None
) -> dict[str, Fit | Unjudged]:
    """The figures of each service at its head, where it has a line of vLLM on a GPU. Raises InventoryError."""
    found: dict[str, Fit | Unjudged] = {}
    for place in places(inventory):
        name = place.service.name
        words = place.words if place.rank == 0 and service in (None, name) else None
        if words is None or place.variables["service"]["gpus"] is None:
            continue
        if place.engine is None:
            reason = f"neither the image's tag nor the recipe says which engine {name} is"
            found[name] = Unjudged(place.model or name, reason)
            continue
        found[name] = fit_line(
            parse(words, place.engine),
            place.engine,
            env=place.environment,
            name=place.model or None,
            beside=inventory.folder,
            question=question,
            steps=place.variables["checkpoint"].get("steps") or (),
        )
    return found


def refuse(inventory: Inventory, today: date, nodes: Iterable[str] | None = None) -> None:
    """Raises LintError where a service's weights alone are more than its engine may take.

    Only that is certain; what hangs on an estimate is told by `sparkops fit` and stops nothing.
    """
    chosen = set(inventory.nodes if nodes is None else nodes)
    accepted = {each.id for each in inventory.accept if not each.until or each.until >= today.isoformat()}
    errors = []
    for name, fit in fit_inventory(inventory).items():
        service = inventory.services[name]
        if isinstance(fit, Unjudged) or fit.budget is None or not chosen & set(service.nodes):
            continue
        if fit.budget.weights > fit.budget.allowed and not accepted & {ACCEPTED_AS, f"{ACCEPTED_AS}@{name}"}:
            words = f"services.{name}: {verdict(replace(fit, refused=''))} [{ACCEPTED_AS}]"
            hint = "take more nodes or a smaller checkpoint, or raise gpu-memory-utilization"
            errors.append(LintError(words, where=service.where, hint=hint))
    if errors:
        raise LintError(errors[0].what, where=errors[0].where, hint=errors[0].hint, others=tuple(errors[1:]))
