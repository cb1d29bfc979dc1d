"""Observe all nodes and plan: observe → orphans → checks → compare → transfers → the plan, each phase a value.

It must not know how a plan is carried out.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from sparkops.core import events
from sparkops.core.digests import digest
from sparkops.core.plan import Declared, Orphan, Plan, Violation
from sparkops.core.report import Command, Report
from sparkops.core.states import Facts, Observed, Unknown
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.session import Session
from sparkops.reconcile import orphans, ports, rollout, rollout_order, transfers
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.observe import informed, observe
from sparkops.reconcile.plan import Observations, compare
from sparkops.reconcile.plan_file import SavedPlan
from sparkops.reconcile.removal import Removal, stays_claimed
from sparkops.reconcile.targets import address
from sparkops.resources.resource import Resource
from sparkops.resources.transfers.source import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a run goes by beside its resources.

    title: the command as locks and the nodes' history name it; `reason`: why, in the user's words, for the history.
    agree: is shown the plan and answers whether to carry it out; None leaves the run at the plan.
    saved: the plan beyond which nothing is done.
    replace: ids of things to make anew though they may be as declared; prune: remove what is no longer declared.
    interrupting: ids of what the command is there to restart: that one runs, or systemd just starts it again, may
        change between the plan and the act.
    retry: bring what was taken back once more.
    removal: what of the nodes' claims is taken back, instead of what is an orphan.
    declared: whether the resources are what the inventory declares: then they are claimed on the nodes.
    rolled: whether engines are changed in the order of their services' rollouts; together: all at once.
    modules: worker modules beside those of the kinds.
    whole: all nodes of the inventory where nothing of it was left out: they are asked even where they have nothing
        to declare, and what else this cluster claims there is an orphan.
    stop: set by the first Ctrl-C.
    """

    command: Command
    inventory: Inventory
    connections: Connections
    secrets: Secrets
    title: str = ""
    reason: str = ""
    agree: Callable[[Report], bool] | None = None
    saved: SavedPlan | None = None
    replace: frozenset[str] = frozenset()
    prune: bool = False
    interrupting: frozenset[str] = frozenset()
    retry: bool = False
    removal: Removal | None = None
    declared: bool = True
    rolled: bool = True
    together: bool = False
    modules: frozenset[str] = frozenset()
    whole: tuple[str, ...] = ()
    notices: tuple[Message, ...] = ()
    listener: events.Listener = events.silent
    jobs: int = THREADS
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def replicas(self) -> rollout.Engines:
        """The engines of each declared service; none where a command does not roll."""
        services = self.inventory.services.values() if self.rolled else ()
        return {each.name: self.inventory.replicas(each.name) for each in services if each.state != "retired"}

    @property
    def limits(self) -> Mapping[str, rollout.Limits]:
        """How each service is rolled out."""
        found = {}
        for service, each in self.replicas.items():
            variables = self.inventory.variables(each[0][0], service).get("rollout") or {}
            found[service] = rollout.Limits(
                batch=None if self.together else int(variables.get("batch") or 1),
                max_failures=int(variables.get("max_failures") or 0),
                progress_seconds=variables.get("progress_deadline"),
            )
        return found

    def retired(self, node: str, service: str | None) -> bool:
        """Whether a node, or a service on it, is declared retired."""
        declared = self.inventory.services.get(service) if service else None
        return self.inventory.nodes[node].state == "retired" or (declared is not None and declared.state == "retired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, the `resources` that it is of (with the orphans to remove) and the facts that they were compared by.

    `upstreams` says by id which resources get their content from another node.
    `claims` is what the node's records of claims lack or have too much, by node: the arguments of `claimed.note`.
    """

    plan: Plan
    resources: tuple[Resource, ...]
    facts: Mapping[str, Facts]
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    claims: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def observe_and_plan(
    fleet: Fleet, resources: Sequence[Resource], unprepared: Mapping[str, Unknown], options: RunOptions, *, quiet: bool
) -> Planned:
    """Ask all nodes once, and plan. Orphans that are to be removed are asked for in a second call, so only then; and
    texts that wait for facts have them asked for before, where there are any.

    With `quiet` no event tells of it. Raises Stale where a saved plan no longer holds.
    """
    removal = options.removal
    resources, uninformed = informed(fleet, resources)
    whole = {"strays": bool(options.whole), "whole": options.agree is not None}
    seen = observe(
        fleet,
        resources,
        unprepared={**unprepared, **uninformed},
        listener=events.silent if quiet else options.listener,
        nodes=options.whole,
        claims=whole if options.declared else None,
        staying=removal.staying if removal is not None else (),
    )
    found, removed = _orphans(resources, seen, options)
    if removed:
        more = observe(fleet, removed)
        lost = {**seen.unreachable, **more.unreachable}
        seen = replace(seen, found={**seen.found, **more.found}, unreachable=lost)
    going = {each.id for each in removed}
    staying = tuple(each for each in found if each.id not in going)
    judged, shared = orphans.judged(resources, seen, staying)
    left = removal.left(removed, seen.found, staying) if removal is not None else {}
    way = orphans.edges(resources, removed, found)
    plan, compared = _compared(resources, removed, seen, options, judged, shared | left.keys(), way)
    upstreams, sources = transfers.arrange(
        plan, compared, seen, lambda node: address(options.inventory, fleet.targets[node])
    )
    plan = replace(
        plan,
        nodes=tuple(dict.fromkeys((*plan.nodes, *options.whole))),
        total=len(resources),
        notices=(
            *options.notices,
            *(Message.of("shared-thing-stays", resource=each) for each in sorted(shared)),
            *(Message.of("removal-restores", resource=each.id) for each in found if each.restores and each.id in going),
            *(Message.of("removal-leaves", resource=each, reason=why) for each, why in left.items()),
            *(rollout.ungated(compared, plan, options.replicas) if options.declared else ()),
            *orphans.at_work(seen),
            *(orphans.renamed(seen, fleet.cluster, fleet.former) if options.whole else ()),
            *plan.notices,
            *sources,
        ),
        unknown={
            **plan.unknown,
            **{f"claims @{n}": each for n, each in seen.claims.items() if isinstance(each, Unknown)},
        },
        orphans=staying,
        declared=tuple(_declared(each, seen.found.get(each.id), options.inventory) for each in resources),
    )
    claims = {}
    if options.agree is not None:
        claimed = stays_claimed if removal is not None else lambda orphan: False
        claims = orphans.notes(resources, seen, plan, prune=options.prune or removal is not None, claimed=claimed)
    return Planned(plan=plan, resources=compared, upstreams=upstreams, facts=seen.facts, claims=claims)


def _compared(
    resources: Sequence[Resource],
    removed: Sequence[Resource],
    seen: Observations,
    options: RunOptions,
    judged: Mapping[str, Sequence[Violation]],
    left: Collection[str],
    way: Mapping[str, Sequence[str]],
) -> tuple[Plan, tuple[Resource, ...]]:
    """The plan, and all resources that it is of. Where engines are changed in turns it is compared twice."""
    replicas = options.replicas
    free = partial(
        compare,
        accept=options.inventory.accept,
        today=datetime.datetime.now(datetime.timezone.utc).date(),
        left=left,
    )
    every = (*resources, *removed)
    plan = free(every, seen, violations=judged, replace=options.replace, edges=way)
    differs = {step.id for step in plan.steps if step.action != "verify"}
    held = {} if options.retry else rollout.holds(resources, seen.found, replicas, differs)
    against = _joined({**ports.taken(every, seen.found, plan), **judged}, held)
    beside = partial(free, violations=against)
    if against != judged:
        plan = beside(every, seen, replace=options.replace, edges=way)
    if replicas and (plan.steps or not options.declared):
        begun = [step for step in plan.steps if step.id not in plan.blocked]
        order = rollout_order.order(resources, begun, seen.found, replicas, options.limits)
        every = (*order.resources, *removed)
        more = replace(seen, found={**seen.found, **order.found})
        last = rollout_order.removals(removed, order.resources, begun, replicas)
        again, edges = options.replace | order.again, _joined(_joined(way, order.edges), last)
        plan = beside(every, more, replace=again, prove=order.prove, edges=edges)
    if options.saved is not None:
        options.saved.refuse_other_steps(plan)
    return plan, every


def _orphans(
    resources: Sequence[Resource], seen: Observations, options: RunOptions
) -> tuple[tuple[Orphan, ...], tuple[Resource, ...]]:
    """The orphans that this run is about, and those of them that go."""
    if not options.whole:
        return (), ()
    if (removal := options.removal) is None:
        found = orphans.find(resources, seen, retired=options.retired)
        return found, orphans.removed(found, resources, prune=options.prune)
    found = removal.taken(orphans.find(removal.staying, seen, retired=options.retired, asked=removal.kinds))
    return found, tuple(each for each in removal.gone(found) if each.node in seen.told)


def _declared(resource: Resource, seen: Observed, inventory: Inventory) -> Declared:
    """A resource as a report lists it, with what was `seen` of it: its place, and digests that tell what moved."""
    owner = inventory.services.get(resource.service or "") or inventory.nodes.get(resource.node)
    wanted = resource.desired()
    keys = None if wanted is None else {key: digest(value) for key, value in wanted.items() if key != "text"}
    found: dict[str, str] = {}
    if isinstance(seen, Mapping) and wanted is not None and keys is not None:
        there = [key for key in keys if key in seen]
        found = {key: keys[key] if seen[key] == wanted[key] else digest(seen[key]) for key in there}
    return Declared(
        id=resource.id,
        kind=resource.kind,
        name=resource.name,
        node=resource.node,
        service=resource.service,
        where=owner.where if owner is not None else "",
        keys=keys,
        found=found,
    )


Each = TypeVar("Each")


def _joined(one: Mapping[str, Sequence[Each]], other: Mapping[str, Sequence[Each]]) -> dict[str, tuple[Each, ...]]:
    return {id: (*one.get(id, ()), *other.get(id, ())) for id in {**one, **other}}


def write_claims(fleet: Fleet, planned: Planned) -> None:
    """Bring the records of claims up to date; a node where that fails is told of by a Notice."""

    def write(node: str, session: Session) -> None:
        session.call("claimed.note", {**(session.claims or {}), **planned.claims[node]}, timeout=30)

    fleet.note(planned.claims, "claims-not-written", write)
