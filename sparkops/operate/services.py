"""What a declared service is on its nodes: the unit that runs each rank, and the probe that proves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import select
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.probe import Probe
from sparkops.resources.unit import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """A service on one of its nodes: its unit, and what proves its engine, where that is asked.

    `model` is the repository or name that is declared, "" for none; `number` its place in its engine, 0 for the head.
    """

    service: str
    node: str
    unit: Unit
    probe: Probe | None
    gate: Gate | None = None
    generation: Generation | None = None
    model: str = ""
    number: int = 0


def ranks(inventory: Inventory) -> Iterator[Rank]:
    """Every rank of every service that is not retired, in the inventory's order. Offline; no secret is read."""
    compiled = compile_inventory(inventory)
    for service in inventory.services.values():
        if service.state == "retired":
            continue
        for node in service.nodes:
            things = compiled.of(node, service.name)
            units = [each for each in things if isinstance(each, Unit) and each.state == "present"]
            main = [each for each in units if each.role == "service"] or units
            probe = next((each for each in things if isinstance(each, Probe)), None)
            gate = next((each for each in things if isinstance(each, Gate)), None)
            generation = next((each for each in things if isinstance(each, Generation)), None)
            if main:
                yield Rank(
                    service=service.name,
                    node=node,
                    unit=main[0],
                    probe=probe,
                    gate=gate,
                    generation=generation,
                    model=_model(inventory, node, service.name),
                    number=inventory.replica(service.name, node).index(node),
                )


def chosen(inventory: Inventory, services: Sequence[str]) -> tuple[Rank, ...]:
    """The ranks of the named services. Raises InventoryError for a name that is none, or has no unit."""
    known = [name for name, each in inventory.services.items() if each.state != "retired"]
    for name in services:
        if name not in known:
            raise InventoryError.of("service-not-found", service=name, suggestion=suggest(name, known))
    found = tuple(rank for rank in ranks(inventory) if rank.service in services)
    for name in services:
        if name not in {rank.service for rank in found}:
            raise InventoryError.of("service-without-unit", name=name)
    return found


def selected(inventory: Inventory, services: Sequence[str], limit: Sequence[str]) -> tuple[str, ...]:
    """The named services, all without a name; of these, with `limit`, those on the nodes that it selects.

    A service is taken whole, so it is those of the closure that `--limit` means everywhere. Raises InventoryError
    where neither is given, and where none is left.
    """
    if not services and not limit:
        raise InventoryError.of("services-not-given")
    known = [name for name, each in inventory.services.items() if each.state != "retired"]
    nodes = set(select(inventory, limit or None))
    found = tuple(
        name for name in services or known if name not in known or nodes & set(inventory.services[name].nodes)
    )
    if not found:
        raise InventoryError.of("no-service-on-nodes", nodes=", ".join(sorted(nodes)) or f"shard {inventory.shard}")
    return found


def _model(inventory: Inventory, node: str, service: str) -> str:
    variables = inventory.variables(node, service)
    repository = (variables.get("checkpoint") or {}).get("repository")
    return str(repository or (variables.get("service") or {}).get("model") or "")
