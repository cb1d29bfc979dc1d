"""Bringing engines back: those that failed in an apply, by themselves; a whole service, when a person asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from sparkops.compile.compiler import Compiled
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.report import Report
from sparkops.core.states import Unknown
from sparkops.inventory.inventory import Inventory
from sparkops.operate.connect import Context, reach
from sparkops.operate.services import Rank, chosen
from sparkops.operate.start_stop import things
from sparkops.reconcile import rollout
from sparkops.reconcile.observe import asked
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.resource import Resource, unpack
from sparkops.resources.unit import Unit


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
    )
    if not bringing:
        return report
    try:
        done = run(bringing, _return_options(options))
    except SparkopsError as error:
        ends = [dataclasses.replace(each, state="return failed", reason=error.message) for each in failed]
    else:
        ends = [rollout.returned(each, done) for each in failed]
    by_engine = {(each.service, each.nodes): each for each in ends}
    after = tuple(by_engine.get((each.service, each.nodes), each) for each in report.rollouts)
    return dataclasses.replace(report, rollouts=after)


def _returns(inventory: Inventory, service: str) -> bool:
    head = inventory.services[service].nodes[0]
    return bool((inventory.variables(head, service).get("rollout") or {}).get("automatic_return", True))


def _return_options(options: RunOptions) -> RunOptions:
    return dataclasses.replace(
        options,
        command="rollback",
        title="return what failed",
        agree=lambda report: True,
        saved=None,
        replace=frozenset(),
        prune=False,
        declared=False,
        together=True,
        whole=(),
        notices=(),
    )


def _bringing(ranks: Sequence[Rank], number: Callable[[Generation], int | str]) -> tuple[Resource, ...]:
    """What brings these back: the kept files on all nodes of an engine, then its restart with its own gate."""
    backs = {
        (rank.service, rank.node): _back(rank.generation, number(rank.generation))
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

    Without a number it is the newest one that is not there now. Raises InventoryError for a service that has no unit.
    """
    context = Context(inventory=inventory, connections=options.connections, listener=options.listener)
    there = kept(context, compiled, [service]) if number is None else {}
    wanted = _bringing(chosen(inventory, [service]), lambda each: number or _earlier(there.get(each.id)))
    if not wanted:
        raise InventoryError.of("service-without-unit", name=service)
    return run(wanted, dataclasses.replace(options, declared=False))


def _earlier(found: Fields | Unknown | None) -> int | str:
    """The newest generation that is not there now, as its node tells; the newest one where it tells nothing."""
    if not isinstance(found, Mapping):
        return "newest"
    numbers = [each["number"] for each in found.get("generations", ()) if each["number"] != found.get("at")]
    return max(numbers, default=0) or "newest"


def kept(context: Context, compiled: Compiled, services: Iterable[str]) -> dict[str, Mapping[str, object] | Unknown]:
    """What each node of these services keeps (the observation of `generation`), or why that is unknown, by its id."""
    wanted = set(services)
    things = [each for each in compiled.resources if isinstance(each, Generation) and each.service in wanted]
    nodes = list(dict.fromkeys(each.node for each in things))
    with reach(context, nodes, [Generation.kind]) as fleet:
        answers, silent = fleet.each(
            nodes,
            lambda node, session: asked(
                session, [(each.id, each.kind, each.ask()) for each in things if each.node == node]
            )[0],
        )
    reasons = {node: Unknown(error.message.id, error.message.args) for node, error in silent.items()}
    return {each.id: reasons.get(each.node) or unpack(answers[each.node].get(each.id)) or {} for each in things}
