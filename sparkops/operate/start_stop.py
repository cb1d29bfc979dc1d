"""Starting, stopping and restarting services, under the nodes' locks: all at once, but restarts engine by engine.

A run of few resources per node: the unit, which shall run or not, the probe, which shall answer, and of a restart the
gate.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence
from typing import Literal

from sparkops.core import events
from sparkops.core.errors import ConvergeFailed
from sparkops.core.plan import Step
from sparkops.core.report import Report
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.operate.services import Rank
from sparkops.reconcile.fleet import THREADS
from sparkops.reconcile.planning import RunOptions
from sparkops.reconcile.run import run
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
    resources = things(verb, chosen, wait)

    def agree(report: Report) -> bool:
        _refuse_missing(report.plan.steps)
        return True

    anew = units(resources) if verb == "restart" else frozenset()
    report = run(
        resources,
        RunOptions(
            command=verb,
            inventory=inventory,
            connections=connections,
            secrets=Secrets(),
            title=f"{verb} {' '.join(dict.fromkeys(rank.service for rank in chosen))}",
            reason=reason,
            agree=agree,
            replace=anew,
            interrupting=anew,
            declared=False,
            rolled=verb == "restart",
            listener=listener,
            jobs=jobs,
            stop=stop or threading.Event(),
        ),
    )
    services = {rank.service for rank in chosen} if verb != "stop" else set()
    shown = {name: url for name, url in report.endpoints.items() if name.partition(" @")[0] in services}
    return dataclasses.replace(report, endpoints=shown)


def things(verb: Verb, chosen: Sequence[Rank], wait: bool) -> tuple[Resource, ...]:
    """What shall be: each unit as the verb says and, of what is to run, the probes after all units of their engine; of
    a restart the gates after the probes.

    A service with a silent node is not started or restarted on the others; it is stopped there.
    """
    nodes: dict[str, list[str]] = {}
    group: dict[tuple[str, tuple[str, ...]], list[Rank]] = {}
    for rank in chosen:
        nodes.setdefault(rank.service, []).append(rank.node)
        group.setdefault((rank.service, rank.unit.engine_nodes), []).append(rank)
    found: list[Resource] = []
    for (service, _), ranks in group.items():
        peers = () if verb == "stop" else tuple(nodes[service])
        units = [_unit(verb, rank, wait and rank.probe is None, peers) for rank in ranks]
        found += units
        if verb != "stop" and wait:
            after = tuple(unit.id for unit in units)
            probes = [rank.probe for rank in ranks if rank.probe is not None]
            found += [dataclasses.replace(probe, after=after, peer_nodes=peers) for probe in probes]
            after = (*after, *(probe.id for probe in probes))
            gates = [rank.gate for rank in ranks if rank.gate is not None and verb == "restart"]
            found += [dataclasses.replace(gate, after=after, peer_nodes=peers) for gate in gates]
    return tuple(found)


def units(resources: Iterable[Resource]) -> frozenset[str]:
    """The ids of the units among them."""
    return frozenset(each.id for each in resources if isinstance(each, Unit))


def _unit(verb: Verb, rank: Rank, wait: bool, peers: tuple[str, ...]) -> Unit:
    """A unit that is to run is given its port, so that nothing is started where something foreign listens."""
    bare = Unit(
        node=rank.node,
        name=rank.unit.name,
        service=rank.service,
        running=verb != "stop",
        wait=wait,
        peer_nodes=peers,
        state_dir=rank.unit.state_dir,
    )
    if verb == "stop":
        return bare
    return dataclasses.replace(
        bare,
        role=rank.unit.role,
        container=rank.unit.container,
        port=rank.unit.port,
        host=rank.unit.host,
        displaces=rank.unit.displaces,
        drain_seconds=rank.unit.drain_seconds,
    )


def _refuse_missing(steps: Iterable[Step]) -> None:
    for step in steps:
        if step.kind == Unit.kind and not (step.before or {}).get("exists"):
            raise ConvergeFailed.of("unit-not-installed", where=step.node, name=step.id.split()[1])
