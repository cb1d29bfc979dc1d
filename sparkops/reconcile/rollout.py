"""In which order the engines of a service are changed, what is held, and how each ended. Pure.

Everything that touches no running engine (images, checkpoints) is brought to all nodes of a service first. Then its
engines are changed batch by batch; the next batch comes after what the last one has to prove.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparkops.core.plan import Plan, Violation
from sparkops.core.report import Result, Rollout, RolloutState
from sparkops.core.states import Observed
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.probe import Probe
from sparkops.resources.reboot import Reboot
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit

Engines = Mapping[str, tuple[tuple[str, ...], ...]]
"""The nodes of each engine of a service, the head first, in the order in which they are changed."""


CUTOVER = (Reboot, Unit, Probe, Gate, Generation)
"""The kinds whose roles are carried out while an engine is interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a service is rolled out.

    batch: engines that are changed at once. max_failures: how many may fail before no further one is changed.
    progress_seconds: within which another engine has to become stable; None for no limit.
    """

    batch: int = 1
    max_failures: int = 0
    progress_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What there is of one engine: `cutover` is changed while it is interrupted, `staging` before."""

    service: str
    nodes: tuple[str, ...]
    staging: tuple[Resource, ...] = field(repr=False)
    cutover: tuple[Resource, ...] = field(repr=False)

    @property
    def entries(self) -> tuple[str, ...]:
        """The ids of what the cutover begins with."""
        ids = {each.id for each in self.cutover}
        return tuple(each.id for each in self.cutover if not ids & set(each.after))

    @property
    def ends(self) -> tuple[str, ...]:
        """The ids of what has to be right before another engine is changed."""
        proofs = [each.id for each in self.cutover if isinstance(each, (Probe, Gate, Generation))]
        return tuple(proofs or (each.id for each in self.cutover))

    @property
    def generations(self) -> tuple[Generation, ...]:
        return tuple(each for each in self.cutover if isinstance(each, Generation))


def engines(resources: Sequence[Resource], replicas: Engines) -> dict[str, tuple[Engine, ...]]:
    """The engines of each service that has a unit among these resources.

    The reboot of a node is part of the engine there of the first service: two orders of one thing could contradict.
    """
    by_service: dict[str, list[Resource]] = {}
    for each in resources:
        if each.service in replicas and not each.pruned:
            by_service.setdefault(str(each.service), []).append(each)
    reboots = {each.node: each for each in resources if isinstance(each, Reboot)}
    found = {}
    for service, own in by_service.items():
        there = [reboots.pop(node) for nodes in replicas[service] for node in nodes if node in reboots]
        found[service] = tuple(_engine(service, nodes, (*there, *own)) for nodes in replicas[service])
    return found


def _engine(service: str, nodes: tuple[str, ...], resources: Sequence[Resource]) -> Engine:
    roles = {each.role for each in resources if isinstance(each, CUTOVER)}
    own = [each for each in resources if each.node in nodes]
    return Engine(
        service=service,
        nodes=nodes,
        staging=tuple(each for each in own if each.role not in roles),
        cutover=tuple(each for each in own if each.role in roles),
    )


def edges(resources: Sequence[Resource], replicas: Engines, limits: Mapping[str, Limits]) -> dict[str, tuple[str, ...]]:
    """What comes after what beside the resources' own order, by id. `limits` by service."""
    found: dict[str, tuple[str, ...]] = {}
    for service, each in engines(resources, replicas).items():
        staged = [id for engine in each for id in _last(engine.staging)]
        size = limits.get(service, Limits()).batch
        for number, engine in enumerate(each):
            first = number // size * size
            before = [id for other in each[max(0, first - size) : first] for id in other.ends]
            for id in engine.entries:
                found[id] = (*staged, *before)
            units = {one.node: one.id for one in engine.cutover if isinstance(one, Unit)}
            head = [units[node] for node in engine.nodes[:1] if node in units]
            for one in engine.cutover if len(engine.nodes) > 1 else ():
                if isinstance(one, (Probe, Gate)):
                    found[one.id] = (*found.get(one.id, ()), *units.values())
                elif isinstance(one, Unit) and one.id not in head:
                    found[one.id] = (*found.get(one.id, ()), *head)  # which waits for its running requests
    return {id: after for id, after in found.items() if after}


def _last(resources: Sequence[Resource]) -> list[str]:
    """The ids that none of the others comes after."""
    followed = {id for each in resources for id in each.after}
    return [each.id for each in resources if each.id not in followed]


def holds(
    resources: Sequence[Resource], found: Mapping[str, Observed], replicas: Engines
) -> dict[str, tuple[Violation, ...]]:
    """The violations of what was taken back and is declared still, by the ids that they keep from being touched."""
    held: dict[str, tuple[Violation, ...]] = {}
    for each in engines(resources, replicas).values():
        for engine in each:
            if violation := next((why for one in engine.generations if (why := one.held(found.get(one.id)))), None):
                for id in engine.entries:
                    held[id] = (replace(violation, resource=id, node=id.rpartition(" @")[2]),)
    return held


def outcomes(
    resources: Sequence[Resource], plan: Plan, results: Sequence[Result], replicas: Engines
) -> tuple[Rollout, ...]:
    """How each engine ended that this run was to interrupt."""
    by_id = {result.id: result for result in results}
    stopped = interrupted(plan)
    found = []
    for each in engines(resources, replicas).values():
        for engine in each:
            ids = [one.id for one in engine.cutover]
            if stopped & set(ids):
                own = [by_id[id] for id in ids if id in by_id]
                found.append(Rollout(service=engine.service, nodes=engine.nodes, state=state_of(own, stopped)))
    return tuple(found)


def interrupted(plan: Plan) -> frozenset[str]:
    """The ids of the steps that stop engines."""
    return frozenset(step.id for step in plan.steps if step.kind in (Unit.kind, Reboot.kind))


def state_of(results: Sequence[Result], units: Collection[str]) -> RolloutState:
    """How an engine ended, by the results of its cutover. `units` are the ids of what was to be interrupted."""
    ended = {result.outcome for result in results}
    if ended <= {"done"}:
        return "done"
    if all(result.outcome == "not-attempted" for result in results if result.id in units):
        return "not started"
    if "failed" in ended:
        return "failed"
    return "paused"


def returning(resources: Sequence[Resource], failed: Collection[Rollout], replicas: Engines) -> tuple[Generation, ...]:
    """What brings the failed engines back to their last stable generation: all nodes of each, without a wait."""
    nodes = {(each.service, each.nodes) for each in failed}
    return tuple(
        replace(back(one, "newest"), drain_seconds=0.0)
        for each in engines(resources, replicas).values()
        for engine in each
        if (engine.service, engine.nodes) in nodes
        for one in engine.generations
    )


def back(declared: Generation, number: int | str, after: tuple[str, ...] = ()) -> Generation:
    """The return of a service on one node, as a resource; after the ids in `after`.

    Ranks restart side by side, since the head is ready with the others only: none waits for requests.
    """
    return Generation(
        node=declared.node,
        name=declared.name,
        role=declared.role,
        service=declared.service,
        peer_nodes=declared.peer_nodes,
        where=declared.where,
        after=after,
        unit=declared.unit,
        files=declared.files,
        restore=number,
        drain_seconds=declared.drain_seconds if len(declared.engine_nodes) < 2 else 0.0,
    )


def returned(failed: Rollout, results: Sequence[Result]) -> Rollout:
    """How a failed engine is after its return."""
    own = [result for result in results if result.node in failed.nodes]
    reasons = [result.reason for result in own if result.outcome != "done"]
    if any(reason is not None and reason.id == "generation-missing" for reason in reasons):
        return replace(failed, state="nothing to return to")
    if reasons or not own:
        return replace(failed, state="return failed", reason=reasons[0] if reasons else None)
    return replace(failed, state="returned")
