"""In which order the engines of a service are changed, what is held, how far that is, and how each ended.

Everything that touches no running engine (images, checkpoints) is brought to all nodes of a service first. Then its
engines are changed batch by batch; the next batch comes after what the last one has to prove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparkops.core import graph
from sparkops.core.digests import digest
from sparkops.core.plan import Plan, Violation
from sparkops.core.report import Report, Result, Rollout, RolloutState
from sparkops.core.states import Observed
from sparkops.core.wording import Message
from sparkops.resources.drain import Drain
from sparkops.resources.gate import Gate
from sparkops.resources.generation import Generation
from sparkops.resources.probe import Probe
from sparkops.resources.reboot import Reboot
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit

Engines = Mapping[str, tuple[tuple[str, ...], ...]]
"""The nodes of each engine of a service, the head first, in the order in which they are changed."""
CUTOVER = (Unit, Probe, Gate, Generation)
"""The kinds whose roles are carried out while an engine is interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a service is rolled out.

    batch: engines that are changed at once, None for all.
    max_failures: how many may fail before no further one is changed.
    progress_seconds: within which another engine has to become stable; None for no limit.
    """

    batch: int | None = 1
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


def engines(resources: Sequence[Resource], replicas: Engines) -> tuple[Engine, ...]:
    """The engines of each service that has something among these resources, with what is changed in their turn."""
    by_service: dict[str, list[Resource]] = {}
    for each in resources:
        service = each.turn or each.service
        if service in replicas and not each.pruned:
            by_service.setdefault(str(service), []).append(each)
    return tuple(_engine(service, nodes, own) for service, own in by_service.items() for nodes in replicas[service])


def _engine(service: str, nodes: tuple[str, ...], resources: Sequence[Resource]) -> Engine:
    roles = {each.role for each in resources if isinstance(each, CUTOVER) and not each.turn}
    own = [each for each in resources if (each.turn_nodes[0] if isinstance(each, Drain) else each.node) in nodes]
    return Engine(
        service=service,
        nodes=nodes,
        staging=tuple(each for each in own if not each.turn and each.role not in roles),
        cutover=tuple(each for each in own if each.turn or each.role in roles),
    )


def edges(resources: Sequence[Resource], replicas: Engines, limits: Mapping[str, Limits]) -> dict[str, tuple[str, ...]]:
    """What comes after what beside the resources' own order, by id. `limits` by service."""
    found: dict[str, tuple[str, ...]] = {}
    every = engines(resources, replicas)
    for service in dict.fromkeys(engine.service for engine in every):
        each = _as_turned([engine for engine in every if engine.service == service], every)
        staging = [one for engine in each for one in engine.staging]
        followed = {id for one in staging for id in one.after}
        staged = [one.id for one in staging if one.id not in followed]
        size = limits.get(service, Limits()).batch or len(each)
        for number, engine in enumerate(each):
            first = number // size * size
            before = [id for other in each[max(0, first - size) : first] for id in other.ends]
            drains = tuple(one.id for one in engine.cutover if isinstance(one, Drain))
            for id in engine.entries:
                found[id] = drains if drains and id not in drains else (*staged, *before)
            units = tuple(one.id for one in engine.cutover if isinstance(one, Unit) and one.service == service)
            for one in engine.cutover if len(engine.nodes) > 1 else ():
                if isinstance(one, (Probe, Gate)) and one.service == service:
                    found[one.id] = (*found.get(one.id, ()), *units)
    for id, earlier in _after_turns(resources, every):
        found[id] = (*found.get(id, ()), earlier)
    after = {each.id: (*each.after, *found.get(each.id, ())) for each in resources}
    for id, earlier in _after_neighbours(every, limits):
        if earlier not in after[id] and id not in graph.reachable(after, earlier):
            after[id] = (*after[id], earlier)
            found[id] = (*found.get(id, ()), earlier)
    return {id: after for id, after in found.items() if after}


def _turned(every: Sequence[Engine]) -> list[Engine]:
    """The engines in whose turn something of their machines is changed."""
    return [each for each in every if any(one.turn and not isinstance(one, Drain) for one in each.cutover)]


def _as_turned(own: Sequence[Engine], every: Sequence[Engine]) -> list[Engine]:
    """The engines of a service; those on machines that are changed in turns of another's go in the order of these."""
    place = {node: number for number, each in reversed([*enumerate(_turned(every))]) for node in each.nodes}
    moved = [each for each in own if place.keys() & {*each.nodes}]
    inner = iter(sorted(moved, key=lambda each: min(place[node] for node in each.nodes if node in place)))
    return [next(inner) if each in moved else each for each in own]


def _after_neighbours(every: Sequence[Engine], limits: Mapping[str, Limits]) -> Iterator[tuple[str, str]]:
    """Pairs of ids: before the next machines are changed, engines of other services on the last are right again."""
    turned = _turned(every)
    for service in dict.fromkeys(each.service for each in turned):
        own = [each for each in turned if each.service == service]
        size = limits.get(service, Limits()).batch or len(own)
        for number, engine in enumerate(own):
            first = number // size * size
            nodes = {node for each in own[max(0, first - size) : first] for node in each.nodes}
            begins = [one.id for one in engine.cutover if isinstance(one, Drain)] or engine.entries
            for other in every:
                if other.service != service and nodes & {*other.nodes}:
                    yield from ((id, end) for id in begins for end in other.ends)


def _after_turns(resources: Sequence[Resource], every: Sequence[Engine]) -> Iterator[tuple[str, str]]:
    """Pairs of ids: on a node on which something is changed in turns the reboot and the engines come after that, and so
    do the waits before engines of other services.

    What is declared to come after an engine stays so.
    """
    after = {each.id: each.after for each in resources}
    for each in resources:
        if not each.turn or isinstance(each, Drain):
            continue
        before = graph.reachable(after, each.id)
        for engine in every:
            for one in engine.cutover if each.node in engine.nodes else ():
                rebooted = isinstance(one, Reboot) and one.node == each.node and not isinstance(each, Reboot)
                waits = isinstance(one, Drain) and each.turn != engine.service
                if (rebooted or waits or not one.turn) and one.id not in before:
                    yield one.id, each.id


def holds(
    resources: Sequence[Resource],
    found: Mapping[str, Observed],
    replicas: Engines,
    differs: Collection[str] | None = None,
) -> dict[str, tuple[Violation, ...]]:
    """The violations of what was taken back and is declared still, by the ids that they keep from being touched.

    Of engines of which nothing `differs` (ids; None: all may) nothing is held. An image that was taken back under a
    name that both have is kept from getting that name again: the engine would start from it by itself.
    """
    held: dict[str, tuple[Violation, ...]] = {}
    by_id = {each.id: each for each in resources}
    for engine in engines(resources, replicas):
        if differs is not None and not any(one.id in differs for one in engine.cutover):
            continue
        units = [one for one in engine.cutover if isinstance(one, Unit) and one.service == engine.service]
        images = {one.node: by_id.get(f"image {one.image} @{one.node}") for one in units}
        for one in engine.generations:
            there, image = found.get(one.id), images.get(one.node)
            by_image = None if one.held(there) else one.held(there, content_of(image))
            if violation := one.held(there) or by_image:
                ids = (*engine.entries, *([image.id] if image is not None and by_image else []))
                held |= {id: (replace(violation, resource=id, node=id.rpartition(" @")[2]),) for id in ids}
    return held


def content_of(image: Resource | None) -> str:
    """What identifies a declared image; "" where that is a name only, or it is not among what is compared."""
    wanted = image.desired() if image is not None else None
    return image_content({key: digest(value) for key, value in (wanted or {}).items()})


def image_content(keys: Mapping[str, str] | None) -> str:
    """The same, by the digests of what is declared of it."""
    told = [(keys or {}).get(key, "") for key in ("digest", "manifest", "build")]
    return digest(told) if any(told) else ""


def outcomes(
    resources: Sequence[Resource], plan: Plan, results: Sequence[Result], replicas: Engines
) -> tuple[Rollout, ...]:
    """How each engine ended that this run was to interrupt; of one whose gate was left out (`--role`, `--no-wait`) only
    what went wrong."""
    by_id = {result.id: result for result in results}
    stopped = interrupted(plan, resources)
    found = []
    for engine in engines(resources, replicas):
        ids = [one.id for one in engine.cutover]
        if stopped & set(ids):
            state = state_of([by_id[id] for id in ids if id in by_id], stopped)
            if state != "done" or any(isinstance(one, Gate) for one in engine.cutover):  # else nothing proved it
                found.append(Rollout(service=engine.service, nodes=engine.nodes, state=state))
    return tuple(found)


def ungated(resources: Sequence[Resource], plan: Plan, replicas: Engines) -> tuple[Message, ...]:
    """What is to be said of services whose engines are interrupted while `--role` leaves out what proves and holds."""
    stopped = {step.id for step in plan.disruptive}
    names = [
        engine.service
        for engine in engines(resources, replicas)
        if stopped & {one.id for one in engine.cutover} and not any(isinstance(one, Gate) for one in engine.cutover)
    ]
    return (Message.of("rollout-role-left-out", services=[*dict.fromkeys(names)]),) if names else ()


def interrupted(plan: Plan, resources: Sequence[Resource]) -> frozenset[str]:
    """The ids of the steps that stop engines, or are made in the turn of one since it may feel them."""
    turns = {each.id for each in resources if each.turn and not isinstance(each, Drain)}
    return frozenset(step.id for step in plan.steps if step.kind == Unit.kind or step.id in turns)


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


def returned(failed: Rollout, report: Report) -> Rollout:
    """How a failed engine is after the run that was to bring it back; as before where nothing else is kept.

    That run may have been about engines of other services on the same nodes, too.
    """
    services = {each.id: each.service for each in report.plan.declared}
    services |= {each.id: each.service for each in report.plan.steps}

    def is_own(id: str, node: str) -> bool:
        return node in failed.nodes and services.get(id) in (failed.service, None)

    own = [result for result in report.results if is_own(result.id, result.node)]
    reasons = [result.reason for result in own if result.outcome not in ("done", "not-attempted")]
    if any(reason is not None and reason.id == "generation-missing" for reason in reasons):
        return replace(failed, state="nothing to return to")
    lost = [why for node, why in report.plan.unreachable.items() if node in failed.nodes]
    lost += [why for id, why in report.plan.unknown.items() if is_own(id, id.rpartition(" @")[2])]
    if not own and not lost:
        return failed
    if not lost and all(result.outcome == "done" for result in own):
        return replace(failed, state="returned")
    return replace(failed, state="return failed", reason=next(iter((*reasons, *lost)), None))


class RolloutProgress:
    """The rollouts among the steps of one run. `clock` counts seconds."""

    def __init__(
        self,
        plan: Plan,
        resources: Sequence[Resource],
        replicas: Engines,
        limits: Mapping[str, Limits],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits, self._clock = limits, clock
        self._engine_of = {one.id: engine for engine in engines(resources, replicas) for one in engine.cutover}
        self._interrupted = interrupted(plan, resources)
        self._since: dict[str, float] = {}

    def begun(self, id: str) -> None:
        """A step begins; the first that changes an engine of its service starts its clock."""
        if engine := self._engine_of.get(id):
            self._since.setdefault(engine.service, self._clock())

    def ended(self, result: Result) -> None:
        """A step has ended; an engine that is stable starts the clock anew."""
        engine = self._engine_of.get(result.id)
        if engine and result.outcome == "done" and result.id.startswith(f"{Generation.kind} "):
            self._since[engine.service] = self._clock()

    def late(self, id: str) -> float | None:
        """The limit within which another engine had to become stable, where that has passed for this step's service."""
        engine = self._engine_of.get(id)
        limit = self._limits[engine.service].progress_seconds if engine and engine.service in self._limits else None
        if engine is None or limit is None or engine.service not in self._since:
            return None
        return limit if self._clock() - self._since[engine.service] > limit else None

    def goes_on(self, id: str, need: str, results: Mapping[str, Result]) -> bool:
        """Whether a step may begin although what it needs has not ended well: another engine failed, and it may."""
        engine, other = self._engine_of.get(id), self._engine_of.get(need)
        if engine is None or other is None or engine.service != other.service or self.late(id):
            return False
        own = {each.nodes: each for each in self._engine_of.values() if each.service == engine.service}
        failed = {nodes for nodes, each in own.items() if self._failed(each, results)}
        limit = self._limits.get(engine.service, Limits()).max_failures
        return engine.nodes != other.nodes and other.nodes in failed and len(failed) <= limit

    def _failed(self, engine: Engine, results: Mapping[str, Result]) -> bool:
        ended = [results[each.id] for each in engine.cutover if each.id in results]
        return state_of(ended, self._interrupted) == "failed"
