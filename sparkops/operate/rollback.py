"""Bringing engines back: those that failed in an apply, by themselves; a whole service, when a person asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparkops.compile.compiler import Compiled
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.report import Report
from sparkops.core.states import Unknown
from sparkops.inventory.inventory import Inventory
from sparkops.operate.connect import Context, reach
from sparkops.reconcile import rollout
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
from sparkops.resources.generation import Generation
from sparkops.resources.resource import Resource, unpack


def return_failed(report: Report, resources: Sequence[Resource], options: RunOptions) -> Report:
    """The report of an apply with its failed engines brought back, where their service declares that.

    Each is brought back once. What keeps a return from being tried is the reason of its state.
    """
    failed = [each for each in report.rollouts if each.state == "failed" and _returns(options.inventory, each.service)]
    things = rollout.returning(resources, failed, options.replicas)
    if not things or report.interrupted:
        return report
    try:
        results = run(things, _return_options(options)).results
    except SparkopsError as error:
        ends = [dataclasses.replace(each, state="return failed", reason=error.message) for each in failed]
    else:
        ends = [rollout.returned(each, results) for each in failed]
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
        whole=(),
        notices=(),
    )


def roll_back(
    inventory: Inventory, compiled: Compiled, service: str, number: int | None, options: RunOptions
) -> Report:
    """Bring all engines of a service back to a generation, one engine after the other.

    Without a number it is the newest one that is not there now. Raises InventoryError for a service that has no unit.
    """
    context = Context(inventory=inventory, connections=options.connections, listener=options.listener)
    there = kept(context, compiled, [service]) if number is None else {}
    replicas = {service: inventory.replicas(service)}
    things: list[Generation] = []
    before: tuple[str, ...] = ()
    for engine in rollout.engines(compiled.resources, replicas).get(service, ()):
        own = [rollout.back(each, number or _earlier(there.get(each.id)), before) for each in engine.generations]
        things += own
        before = tuple(each.id for each in own)
    if not things:
        raise InventoryError.of("service-without-unit", name=service)
    return run(things, dataclasses.replace(options, declared=False))


def _earlier(found: Mapping[str, Any] | Unknown | None) -> int | str:
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
        answers = fleet.each(
            nodes,
            lambda node, session: session.call(
                "observe",
                {"asks": [[each.id, each.kind, each.ask()] for each in things if each.node == node]},
                timeout=60,
            ),
        )
    found: dict[str, Mapping[str, object] | Unknown] = {}
    for each in things:
        answer = answers[each.node]
        if isinstance(answer, SparkopsError):
            found[each.id] = Unknown(answer.message.id, answer.message.args)
            continue
        seen = unpack(answer.get("answers", {}).get(each.id))
        found[each.id] = seen if isinstance(seen, (Mapping, Unknown)) else {}
    return found
