"""Starting, stopping and restarting services: whole replica groups at once, under the nodes' locks.

It is the road again, for two things per node only: the unit, which shall run or not, and the probe, which shall answer.
"""

from __future__ import annotations

import dataclasses
import datetime
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from sparkops.core import events
from sparkops.core.errors import ConvergeFailed, SparkopsError
from sparkops.core.report import Report
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.connect import Connections
from sparkops.operate.connect import reach
from sparkops.operate.services import Rank
from sparkops.reconcile import schedule
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.history import KIND, actor, by_node, record
from sparkops.reconcile.observe import observe
from sparkops.reconcile.plan import Observations, build
from sparkops.reconcile.run import endpoints
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit

Verb = Literal["start", "stop", "restart"]


def switch(
    verb: Verb,
    inventory: Inventory,
    chosen: Sequence[Rank],
    connections: Connections,
    *,
    wait: bool = True,
    reason: str = "",
    listener: events.Listener = events.silent,
    jobs: int = THREADS,
    stop: threading.Event | None = None,
) -> Report:
    """Bring all ranks there; with `wait` until they answer. Raises LockBusy, ConvergeFailed with nothing touched."""
    started = time.monotonic()
    resources = things(verb, chosen, wait)
    nodes = list(dict.fromkeys(rank.node for rank in chosen))
    name = f"{verb} {' '.join(dict.fromkeys(rank.service for rank in chosen))}"
    kinds = {KIND, *(each.kind for each in resources)}
    with reach(inventory, nodes, kinds, connections, listener=listener, jobs=jobs) as fleet:
        _lock(fleet, nodes, name)
        seen = observe(fleet, resources, listener=listener)
        if verb != "stop":
            _refuse_missing(resources, seen)
        plan = build(
            resources,
            seen,
            today=datetime.datetime.now(datetime.timezone.utc).date(),
            replace=frozenset(each.id for each in resources if each.kind == "unit" and verb == "restart"),
        )
        stopping = stop or threading.Event()
        results = schedule.run(plan, resources, fleet, facts=seen.facts, stop=stopping, listener=listener)
        if plan.steps:
            record(fleet, inventory, name, by_node(plan.steps, results), reason=reason, listener=listener)
        fleet.unlock()
    return Report(
        command=verb,
        cluster=inventory.cluster,
        inventory=str(inventory.path),
        plan=plan,
        results=results,
        endpoints={} if verb == "stop" else _endpoints(inventory, chosen),
        seconds=time.monotonic() - started,
        interrupted=any(result.outcome == "interrupted" for result in results),
    )


def things(verb: Verb, chosen: Sequence[Rank], wait: bool) -> tuple[Resource, ...]:
    """What shall be: each unit as the verb says and, of what is to run, the probes after all units of their service.

    A service with a silent node is not started or restarted on the others; it is stopped there.
    """
    group: dict[str, list[Rank]] = {}
    for rank in chosen:
        group.setdefault(rank.service, []).append(rank)
    found: list[Resource] = []
    for service, ranks in group.items():
        peers = () if verb == "stop" else tuple(rank.node for rank in ranks)
        units = [
            Unit(
                node=rank.node,
                name=rank.unit.name,
                service=service,
                running=verb != "stop",
                wait=wait and rank.probe is None,
                peer_nodes=peers,
            )
            for rank in ranks
        ]
        found += units
        if verb != "stop" and wait:
            after = tuple(unit.id for unit in units)
            probes = [rank.probe for rank in ranks if rank.probe is not None]
            found += [dataclasses.replace(probe, after=after, peer_nodes=peers) for probe in probes]
    return tuple(found)


def _lock(fleet: Fleet, nodes: Sequence[str], name: str) -> None:
    """The locks of all nodes that answer. What keeps the others from answering is told by the plan."""
    opened: Mapping[str, SparkopsError | None] = fleet.each(nodes, lambda node, session: None)
    fleet.lock([node for node, answer in opened.items() if answer is None], actor(name))


def _refuse_missing(resources: Sequence[Resource], seen: Observations) -> None:
    for each in resources:
        found = seen.found.get(each.id)
        if isinstance(each, Unit) and isinstance(found, Mapping) and not found.get("exists"):
            raise ConvergeFailed(
                f"there is no unit {each.name}", where=each.node, hint="sparkops apply brings it and starts it"
            )


def _endpoints(inventory: Inventory, chosen: Sequence[Rank]) -> dict[str, str]:
    services = {rank.service for rank in chosen}
    return {name: url for name, url in endpoints(inventory, tuple(inventory.nodes)).items() if name in services}
