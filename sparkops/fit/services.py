"""The services of an inventory, each one's line counted like a pasted one. It must not know a node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date

from sparkops.core.errors import InventoryError
from sparkops.fit.fit import Fit, NotEvaluated, Question, fit_invocation
from sparkops.fit.verdict import verdict
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import select
from sparkops.inventory.served import Placed, places
from sparkops.lint import check
from sparkops.lint.case import Found
from sparkops.lint.declared import accepted_by
from sparkops.models.invocation import Ask

TOO_HEAVY = "weights-do-not-fit"
ENGINE = "write service.engine, like engine: 0.26.0"


def fit_services(
    inventory: Inventory, service: str | None = None, question: Question | None = None, ask: Ask | None = None
) -> dict[str, Fit | NotEvaluated]:
    """The figures of every service of an inventory (or of one) by name. Raises InventoryError."""
    if service is not None and service not in inventory.services:
        raise InventoryError.of("service-unknown", service=service, near=suggest(service, inventory.services))
    if service is not None and inventory.services[service].nodes[0] not in select(inventory, None):
        raise InventoryError.of("no-service-on-nodes", nodes=f"shard {inventory.shard}")
    found = fit_inventory(inventory, service, question, ask)
    if service is None:
        return found
    only = found.get(service)
    if only is None:
        raise InventoryError.of("service-without-line", where=inventory.services[service].where, service=service)
    if isinstance(only, NotEvaluated):
        place = inventory.services[service].where
        raise InventoryError.of("service-not-evaluated", where=place, reason=only.reason, way_out=only.hint)
    return found


def fit_inventory(
    inventory: Inventory, service: str | None = None, question: Question | None = None, ask: Ask | None = None
) -> dict[str, Fit | NotEvaluated]:
    """The figures of each service at its head, where it has a line of vLLM on a GPU. Raises InventoryError."""
    found: dict[str, Fit | NotEvaluated] = {}
    chosen = set(select(inventory, None))
    for place in places(inventory, ask):
        name = place.service.name
        if (
            place.node != place.service.nodes[0]
            or place.node not in chosen
            or service not in (None, name)
            or place.variables["service"]["gpus"] is None
        ):
            continue
        run = place.invocation(place.model)
        if run is not None:
            found[name] = fit_invocation(run, question)
        elif place.words is not None or place.fault is not None:
            found[name] = _not_evaluated(place)
    return found


def _not_evaluated(place: Placed) -> NotEvaluated:
    name = place.service.name
    if place.fault is not None:
        reason = f"the serve line of {name} cannot be made: {place.fault.what}"
        return NotEvaluated(place.model or name, reason, place.fault.hint)
    reason = f"neither the image's tag nor the recipe names the engine's version of {name}"
    return NotEvaluated(place.model or name, reason, ENGINE)


def refuse(inventory: Inventory, today: date, nodes: Iterable[str] | None = None) -> None:
    """Raises LintError where a service's weights alone are more than its engine may take.

    Only that is certain; what depends on an estimate is reported by `sparkops fit` and stops nothing.
    """
    chosen = set(inventory.nodes if nodes is None else nodes)
    found = []
    for name, fit in fit_inventory(inventory).items():
        service = inventory.services[name]
        if isinstance(fit, NotEvaluated) or fit.figures.budget is None or not chosen & set(service.nodes):
            continue
        if fit.run.model is None or fit.run.model.guessed:
            continue
        if fit.figures.budget.weights > fit.figures.budget.allowed:
            what = Found(verdict(replace(fit, refused="")))
            each = check.finding(TOO_HEAVY, what, f"services.{name}", engine=fit.run.engine, where=service.where)
            found.append(accepted_by(inventory, each, today))
    check.refuse(found)
