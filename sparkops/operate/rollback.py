"""Bringing engines back: those that failed in an apply, by themselves; a whole service, when a person asks for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from sparkops.compile.compiler import Compiled
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.report import Report
from sparkops.core.states import Unknown
from sparkops.inventory.inventory import Inventory
from sparkops.operate.connect import Context, reach
from sparkops.operate.services import Rank, chosen
from sparkops.operate.start_stop import things, units
from sparkops.reconcile import rollout
from sparkops.reconcile.diff import diff
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import FACTS, asked, informed
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.image import Image
from sparkops.resources.resource import Resource, unpack
from sparkops.resources.unit import Unit

Kept: TypeAlias = "Mapping[str, object] | Unknown"


def return_failed(report: Report, options: RunOptions) -> Report:
    """The report of an apply with its failed engines brought back, where their service declares that.

    Each is brought back once, without a wait for its requests. What keeps a return from being tried is the reason of
    its state.
    """
    failed = [each for each in report.rollouts if each.state == "failed" and _returns(options.inventory, each.service)]
    if not failed or report.interrupted:
        return report
    nodes = {(each.service, node) for each in failed for node in each.nodes}
    names = list(dict.fromkeys(each.service for each in failed))
    bringing = _bringing(
        [
            dataclasses.replace(rank, unit=dataclasses.replace(rank.unit, drain_seconds=0.0))
            for rank in chosen(options.inventory, names)
            if (rank.service, rank.node) in nodes
        ],
        lambda generation: "newest",
        {each.id: rollout.image_content(each.keys) for each in report.plan.declared if each.kind == Image.kind},
    )
    if not bringing:
        return report
    try:
        done = run(bringing, _return_options(options, bringing))
    except SparkopsError as error:
        ends = [dataclasses.replace(each, state="return failed", reason=error.message) for each in failed]
    else:
        ends = [rollout.returned(each, done) for each in failed]
    by_engine = {(each.service, each.nodes): each for each in ends}
    after = tuple(by_engine.get((each.service, each.nodes), each) for each in report.rollouts)
    now = time.time()
    return dataclasses.replace(report, rollouts=after, seconds=report.seconds + now - report.time, time=now)


def _returns(inventory: Inventory, service: str) -> bool:
    head = inventory.services[service].nodes[0]
    return bool((inventory.variables(head, service).get("rollout") or {}).get("automatic_return", True))


def _return_options(options: RunOptions, bringing: Sequence[Resource]) -> RunOptions:
    return dataclasses.replace(
        options,
        command="rollback",
        title="return what failed",
        agree=lambda report: True,
        saved=None,
        replace=frozenset(),
        interrupting=units(bringing),
        prune=False,
        declared=False,
        together=True,
        whole=(),
        notices=(),
    )


def _bringing(
    ranks: Sequence[Rank], number: Callable[[Generation], int | str], images: Mapping[str, str]
) -> tuple[Resource, ...]:
    """What brings these back: the kept files on all nodes of an engine, then its restart with its own gate.

    `images` has by id what identifies an image that is there as it is declared.
    """
    backs = {
        (rank.service, rank.node): dataclasses.replace(
            _back(rank.generation, number(rank.generation)),
            image=images.get(f"{Image.kind} {rank.unit.image} @{rank.node}", ""),
        )
        for rank in ranks
        if rank.generation is not None
    }
    found: list[Resource] = list(backs.values())
    for each in things("restart", [rank for rank in ranks if (rank.service, rank.node) in backs], True):
        if isinstance(each, Unit):
            engine = next(rank.unit.engine_nodes for rank in ranks if rank.unit.id == each.id) or (each.node,)
            own = [backs[(each.service or "", node)].id for node in engine if (each.service, node) in backs]
            found.append(dataclasses.replace(each, after=tuple(own)))
        else:
            found.append(dataclasses.replace(each, restored=True) if isinstance(each, Gate) else each)
    return tuple(found)


def _back(declared: Generation, number: int | str) -> Generation:
    """The return of a service's files on one node."""
    return dataclasses.replace(declared, after=(), inputs=None, keep=Generation.keep, restore=number)


def roll_back(
    inventory: Inventory, compiled: Compiled, service: str, number: int | None, options: RunOptions
) -> Report:
    """Bring all engines of a service back to a generation, one engine after the other.

    Without a number it is the newest one that is not there now; where a rollout has changed only some of the nodes, the
    newest one that is not what is declared. Raises InventoryError for a service that has no unit, and where a node is
    known to keep nothing of that number, or a rank nothing at all: its engine would be left half brought back.
    """
    context = Context(inventory=inventory, connections=options.connections, listener=options.listener)
    there, declared, images = _there(context, compiled, service)
    if lacking := lacks(there, number, [set(each) for each in inventory.replicas(service)]):
        raise InventoryError.of("generation-not-kept", service=service, wanted=number or "to return to", nodes=lacking)
    before = {} if number else earlier(there, declared)
    wanted = _bringing(chosen(inventory, [service]), lambda each: number or before.get(each.id, "newest"), images)
    if not wanted:
        raise InventoryError.of("service-without-unit", name=service)
    return run(wanted, dataclasses.replace(options, declared=False, interrupting=units(wanted)))


def lacks(there: Mapping[str, Kept], number: int | None, engines: Iterable[Collection[str]]) -> list[str]:
    """The nodes that told what they keep and lack the generation of that number; without one, those of an engine of
    several ranks that keep none. What there is comes by the ids of the nodes' generations."""
    ranks = {node for nodes in engines if len(nodes) > 1 for node in nodes}
    found = []
    for id, told in there.items():
        if isinstance(told, Mapping):
            node, generations = id.rpartition(" @")[2], told.get("generations")
            numbers = [each["number"] for each in generations] if isinstance(generations, list) else []
            if number not in numbers if number else not numbers and node in ranks:
                found.append(node)
    return found


def earlier(there: Mapping[str, Kept], declared: Mapping[str, str | None]) -> dict[str, int | str]:
    """The number of the generation before what is `there` on each node, by id; "newest" where none is known.

    In the middle of a rollout some nodes have what is `declared` and others do not yet: these stay as they are.
    """
    told = {id: found for id, found in there.items() if isinstance(found, Mapping)}
    new = [id for id, found in told.items() if found.get("inputs") == declared.get(id)]
    begun = 0 < len(new) < len(told)

    def number(id: str, found: Fields) -> int | str:
        there_now = ("inputs", declared.get(id)) if begun else ("number", found.get("at"))
        other = [each["number"] for each in found.get("generations", ()) if each[there_now[0]] != there_now[1]]
        return max(other, default=0) or "newest"

    return {id: number(id, found) for id, found in told.items()}


def _there(
    context: Context, compiled: Compiled, service: str
) -> tuple[dict[str, Kept], dict[str, str | None], dict[str, str]]:
    """What each node keeps of a service, the digest of the spec that is declared there, and what identifies its image
    where that is there as it is declared; all by id."""
    things = _generations(compiled, [service])
    images = [each for each in compiled.resources if isinstance(each, Image) and each.service == service]
    with reach(context, {each.node for each in things}, [Generation.kind, Image.kind, FACTS]) as fleet:
        full, unknown = informed(fleet, things)
        inputs = {each.id: None if each.id in unknown else each.inputs for each in full if isinstance(each, Generation)}
        found = _observed(fleet, [*things, *images])
    there = {each.id: rollout.content_of(each) for each in images if diff(each, found[each.id], {}) is None}
    return {each.id: found[each.id] for each in things}, inputs, there


def kept(context: Context, compiled: Compiled, services: Iterable[str]) -> dict[str, Kept]:
    """What each node of these services keeps (the observation of `generation`), or why that is unknown, by its id."""
    things = _generations(compiled, services)
    with reach(context, {each.node for each in things}, [Generation.kind]) as fleet:
        return _observed(fleet, things)


def _generations(compiled: Compiled, services: Iterable[str]) -> list[Generation]:
    wanted = set(services)
    return [each for each in compiled.resources if isinstance(each, Generation) and each.service in wanted]


def _observed(fleet: Fleet, things: Sequence[Resource]) -> dict[str, Kept]:
    answers, silent = fleet.each(
        dict.fromkeys(each.node for each in things),
        lambda node, session: asked(
            session, [(each.id, each.kind, each.ask()) for each in things if each.node == node]
        )[0],
    )
    reasons = {node: Unknown(error.message.id, error.message.args) for node, error in silent.items()}
    return {each.id: reasons.get(each.node) or unpack(answers[each.node].get(each.id)) or {} for each in things}
