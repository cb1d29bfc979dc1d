"""The services of an inventory, checked before anything is touched: their lines, and what only an inventory can show.

Each service's line comes from `inventory/served.py`. It must not know a node: what is observed is checked by the
resources of the roles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from types import ModuleType

from sparkops.inventory import served
from sparkops.inventory.inventory import Inventory, accepting
from sparkops.inventory.limit import select
from sparkops.inventory.merge import origin
from sparkops.inventory.served import Placed
from sparkops.lint import acceptances, neighbours, ranks, services
from sparkops.lint.acceptances import Acceptance
from sparkops.lint.case import case_of
from sparkops.lint.check import Finding, applied, check, finding, ordered
from sparkops.lint.check import refuse as refuse_findings
from sparkops.lint.neighbours import Neighbours
from sparkops.lint.ranks import Ranks
from sparkops.models.invocation import Ask


def lint_inventory(
    inventory: Inventory, today: date, nodes: Iterable[str] | None = None, ask: Ask | None = None
) -> list[Finding]:
    """All findings of the services on these nodes (all of them without), those that the inventory accepts marked."""
    chosen = set(select(inventory, None) if nodes is None else nodes)
    places = [place for place in served.places(inventory, ask) if place.node in chosen]
    found = [
        *_lines(inventory, places),
        *_of_services(inventory, places),
        *_of_nodes(inventory, places),
        *_of_ranks(inventory, places),
    ]
    accepted = [accepted_by(inventory, each, today) for each in _once(found)]
    return ordered([*accepted, *_of_acceptances(inventory, today)])


def refuse(inventory: Inventory, today: date, nodes: Iterable[str] | None = None) -> None:
    """Raises LintError with every error of the services on these nodes that the inventory does not accept."""
    refuse_findings(lint_inventory(inventory, today, nodes))


def accepted_by(inventory: Inventory, found: Finding, today: date) -> Finding:
    """The finding, marked where the inventory accepts its id or `ID@SERVICE` on that day."""
    service = found.subject.partition(".")[2]
    entry = accepting(inventory.accept, today, found.id, f"{found.id}@{service}")
    return found if entry is None else replace(found, accepted=entry.words)


def _once(found: Iterable[Finding]) -> Iterable[Finding]:
    """What is the same on several nodes is reported once."""
    first: dict[tuple[str, str, str], Finding] = {}
    for each in found:
        first.setdefault((each.subject, each.id, each.message), each)
    return first.values()


def _lines(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """What the rules of a line find in each service."""
    for place in places:
        repository = place.variables["checkpoint"]["repository"] or ""
        run = place.invocation(repository)
        if run is None:
            continue
        spark = place.variables["service"]["gpus"] is not None
        patched = bool((place.variables["image"]["build"] or {}).get("tag"))
        case = case_of(run, spark=spark, nodes=len(place.replica), patched=patched)
        for each in check(case, f"services.{place.service.name}", repository):
            yield replace(each, where=_where(inventory, place, _path(each.flag)))


def _of_services(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """Image, checkpoint and limits of each service."""
    for place in places:
        yield from _applied(services, place, place, inventory)


def _of_nodes(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """What the services of one node do to each other."""
    by_node: dict[str, list[Placed]] = defaultdict(list)
    for place in places:
        before = by_node[place.node]
        beside = Neighbours(place, tuple(other for other in before if not _exclude(place, other)))
        yield from _applied(neighbours, beside, place, inventory)
        before.append(place)


def _of_ranks(inventory: Inventory, places: list[Placed]) -> Iterator[Finding]:
    """What is wrong between the ranks of an engine, and between engines with one head."""
    heads: list[Placed] = []
    for head in (place for place in places if not place.rank and "--nnodes" in (place.words or ())):
        engine = tuple(place for place in places if place.service is head.service)
        beside = tuple(other for other in heads if other.node == head.node and not _exclude(head, other))
        yield from _applied(ranks, Ranks(engine, beside), head, inventory)
        heads.append(head)


def _applied(rules: ModuleType, subject: object, place: Placed, inventory: Inventory) -> Iterator[Finding]:
    """What the rules of a module find in a subject, as findings of the service of `place`."""
    for name, found in applied((rules,), subject, place.engine):
        where = _where(inventory, place, found.path)
        yield finding(name, found, f"services.{place.service.name}", engine=place.engine, where=where)


def _exclude(one: Placed, other: Placed) -> bool:
    """Whether two services never run together, because one names the other's unit as a conflict."""
    return _unit(one) in (other.variables["service"]["conflicts"] or ()) or _unit(other) in (
        one.variables["service"]["conflicts"] or ()
    )


def _unit(place: Placed) -> str:
    return str(place.variables["service"]["unit"] or f"{place.service.name}.service")


def _of_acceptances(inventory: Inventory, today: date) -> Iterator[Finding]:
    for entry in inventory.accept:
        for name, found in applied((acceptances,), Acceptance(entry, inventory, today), None):
            yield finding(name, found, "accept", engine=None, where=str(inventory.path))


def _path(flag: str) -> tuple[str, ...]:
    """The path of a flag or an environment variable in the variables of the roles."""
    return ("service", "serve", flag.lstrip("-")) if flag.startswith("-") else ("service", "environment", flag)


def _where(inventory: Inventory, place: Placed, path: tuple[str, ...]) -> str:
    """`file:line` of a variable, or of the service where nothing sets it."""
    found = (_set_at(inventory, place, path) if path and path[-1] else "") or place.service.where
    return found.rpartition(":")[0] if found.count(":") > 1 else found


def _set_at(inventory: Inventory, place: Placed, path: tuple[str, ...]) -> str:
    """The place of a variable in any of its spellings; "" where only a default sets it."""
    defaults = inventory.sources.defaults
    layers = [layer for layer in inventory.layers(place.node, place.service.name) if layer not in defaults]
    for candidate in (path, (*path[:-1], path[-1].replace("-", "_")), (*path[:-1], f"no-{path[-1]}")):
        layer = origin(layers, candidate)
        if layer is not None:
            return layer.where(candidate)
    return ""
