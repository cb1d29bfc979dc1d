"""What a rollout makes of a plan: what is changed in whose turn, what is done again, and what is waited for. Pure.

A plan is compared twice: from the steps of the first comparison follows what this module adds to the second. What the
engines of a node may feel (a package, a kernel parameter, the fabric, a reboot) becomes part of the turn of the engine
there, with what stands on it; images and checkpoints are brought before, since the node serves already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sparkops.core import graph
from sparkops.core.plan import Step
from sparkops.core.states import Observed
from sparkops.reconcile.rollout import Engine, Engines, Limits, edges, engines
from sparkops.resources.drain import Drain
from sparkops.resources.gate import Gate
from sparkops.resources.probe import Probe
from sparkops.resources.reboot import Reboot
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit

Found = Mapping[str, Observed]
Steps = Mapping[str, Step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The resources with their turns and with the waits for requests, which `found` observes, and their further edges.

    again: ids of units to restart though they are as declared. prove: ids of what has to be proven again.
    """

    resources: tuple[Resource, ...]
    edges: Mapping[str, tuple[str, ...]]
    found: Found
    again: frozenset[str]
    prove: frozenset[str]


def order(
    resources: Sequence[Resource], steps: Sequence[Step], found: Found, replicas: Engines, limits: Mapping[str, Limits]
) -> Order:
    """What these steps of a first comparison come to. `limits` by service."""
    planned = {step.id: step for step in steps}
    placed = _in_turns(resources, planned, found, replicas)
    every = engines(placed, replicas)
    again = frozenset(id for engine in every for id in _again(engine, planned, found))
    drains: dict[str, Drain] = {}
    prove: set[str] = set()
    for engine in every:
        turned = [one for one in engine.cutover if one.turn and one.id in planned]
        felt = {one.node for one in turned if one.felt(planned[one.id].changes)}
        touched = [other for other in every if felt & set(other.nodes)]
        if again & set(_units(engine)) or any(id in planned and planned[id].disruptive for id in _units(engine)):
            touched.append(engine)
        for other in touched:
            drains |= {one.id: one for one in _drains(other, engine, found)}
        prove |= {one.id for other in touched for one in other.cutover if isinstance(one, (Probe, Gate))}
        prove |= _unproven(engine, planned)
    placed = (*placed, *drains.values())
    return Order(
        resources=placed,
        edges=edges(placed, replicas, limits),
        found={id: {} for id in drains},
        again=again,
        prove=frozenset({*prove, *drains}),
    )


def removals(
    removed: Sequence[Resource], resources: Sequence[Resource], steps: Sequence[Step], replicas: Engines
) -> dict[str, tuple[str, ...]]:
    """What the removal of an engine that is no longer declared comes after, by id: the proofs of those of its service
    that these steps interrupt, since it serves until then. Not where another engine is to have its node."""
    interrupted = {step.id for step in steps if step.disruptive}
    taken = {node for groups in replicas.values() for nodes in groups for node in nodes}
    ends: dict[str, tuple[str, ...]] = {}
    for engine in engines(resources, replicas):
        if interrupted & set(_units(engine)):
            ends[engine.service] = (*ends.get(engine.service, ()), *engine.ends)
    going = [each for each in removed if isinstance(each, Unit) and each.node not in taken]
    return {each.id: ends[each.service] for each in going if each.service in ends}


def _in_turns(resources: Sequence[Resource], steps: Steps, found: Found, replicas: Engines) -> tuple[Resource, ...]:
    """The resources, what the engines of a node may feel marked with the service in whose turn it is changed.

    That is the first service of the node: two orders of one thing could contradict.
    """
    turns: dict[str, str] = {}
    every = engines(resources, replicas)
    first = {node: engine.service for engine in reversed(every) for node in engine.nodes}
    serving = {each.node for each in resources if _serves(each, found) and each.service in replicas}
    by_id = {each.id: each for each in resources}
    after = {each.id: each.after for each in resources if each.service is None and not each.pruned}
    for id in graph.ordered(after):
        each = by_id[id]
        felt = id in steps and each.felt(steps[id].changes) and each.node in serving
        if each.node in first and (felt or isinstance(each, Reboot) or any(up in turns for up in each.after)):
            turns[id] = first[each.node]
    if not turns:
        return tuple(resources)
    staging = {one.id for engine in every for one in engine.staging}

    def before(ids: Sequence[str]) -> Iterator[str]:
        """What comes before, without what is changed in turns."""
        for id in ids:
            yield from before(by_id[id].after) if id in turns else (id,)

    return tuple(
        replace(
            each,
            turn=turns.get(each.id, ""),
            after=tuple(dict.fromkeys(before(each.after))) if each.id in staging else each.after,
        )
        for each in resources
    )


def _serves(each: Resource, found: Found) -> bool:
    there = found.get(each.id)
    return isinstance(each, Unit) and isinstance(there, Mapping) and bool(there.get("running"))


def _units(engine: Engine) -> tuple[str, ...]:
    """The ids of the engine's own units, the head's first."""
    own = [each for each in engine.cutover if isinstance(each, Unit) and each.service == engine.service]
    return tuple(each.id for each in sorted(own, key=lambda each: engine.nodes.index(each.node)))


def _again(engine: Engine, steps: Steps, found: Found) -> tuple[str, ...]:
    """Units to restart: all behind a generation that is brought back; the head's where another rank is interrupted,
    since no rank works without the others."""
    outdated = {id for id, each in found.items() if isinstance(each, Mapping) and each.get("outdated")}
    if any(one.restore is not None and one.id in steps.keys() | outdated for one in engine.generations):
        return _units(engine)
    units = {each.id: each for each in engine.cutover if isinstance(each, Unit)}
    own = _units(engine)
    head = [id for id in own[:1] if units[id].node == engine.nodes[0] and _serves(units[id], found)]
    return tuple(head) if any(id in steps and steps[id].disruptive for id in own[1:]) else ()


def _unproven(engine: Engine, steps: Steps) -> frozenset[str]:
    """The gates of an engine of which a rank is not stable: a run ended before they were asked."""
    if not any(one.restore is None and one.id in steps for one in engine.generations):
        return frozenset()
    return frozenset(one.id for one in engine.cutover if isinstance(one, Gate))


def _drains(engine: Engine, turn: Engine, found: Found) -> Iterator[Drain]:
    """The wait for the requests of an engine that serves, in the turn of the engine with which it is interrupted."""
    beside = "" if turn == engine else f" in the turn of {turn.service} on {turn.nodes[0]}"
    for each in engine.cutover:
        own = isinstance(each, Unit) and each.service == engine.service and each.node == engine.nodes[0]
        if not own or not isinstance(each, Unit) or not _serves(each, found):
            continue
        if each.drain_seconds and each.port:
            yield Drain(
                node=each.node,
                name=engine.service + beside,
                service=engine.service,
                turn=turn.service,
                turn_nodes=turn.nodes,
                peer_nodes=each.peer_nodes,
                engine_nodes=engine.nodes,
                seconds=each.drain_seconds,
                port=each.port,
                host=each.host,
                unit=each.name,
                container=each.container,
            )
