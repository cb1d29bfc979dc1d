"""One look at all nodes and what follows from it: observations, orphans and the plan; and the records of claims kept.

It must not know how a plan is carried out.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sparkops.compile.compiler import Compiled
from sparkops.core import events
from sparkops.core.errors import SparkopsError
from sparkops.core.plan import Plan
from sparkops.core.states import Unknown
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.session import Session
from sparkops.reconcile import orphans, transfers
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import CLAIMS, observe
from sparkops.reconcile.plan import Observations, build
from sparkops.reconcile.targets import address
from sparkops.resources.resource import Resource
from sparkops.resources.transfer_source import Upstream


class Run(Protocol):
    """What a look has to know of a run."""

    @property
    def inventory(self) -> Inventory: ...
    @property
    def compiled(self) -> Compiled: ...
    @property
    def listener(self) -> events.Listener: ...
    @property
    def prune(self) -> bool: ...
    @property
    def replace(self) -> frozenset[str]: ...


@dataclass(frozen=True, kw_only=True)
class View:
    """What was seen and what follows: `resources` with the orphans to remove, `notes` for the records of claims.

    `upstreams` says by id which of them get their content from another node.
    """

    resources: tuple[Resource, ...]
    upstreams: Mapping[str, Upstream]
    seen: Observations
    plan: Plan
    notes: Mapping[str, Mapping[str, Any]]


def asked(compiled: Compiled) -> tuple[str, ...]:
    """The nodes to ask also where they have nothing to declare: all, when nothing of the inventory was left out."""
    return compiled.nodes if compiled.whole else ()


def kinds_needed(run: Run) -> set[str]:
    """The worker's modules beside those of the declared kinds."""
    states = [each.state for each in run.inventory.nodes.values()]
    states += [each.state for each in run.inventory.services.values()]
    return {CLAIMS, *(orphans.REMOVED if run.prune or "retired" in states else ())}


def look(
    run: Run,
    fleet: Fleet,
    resources: Sequence[Resource],
    unprepared: Mapping[str, Unknown],
    *,
    acting: bool = False,
    again: bool = False,
) -> View:
    """Ask all nodes, and plan. Orphans that are to be removed are asked for in a second call, so only then.

    `acting` also gets what `notes` needs; `again` tells nobody of the look.
    """
    whole = run.compiled.whole
    seen = observe(
        fleet,
        resources,
        unprepared=unprepared,
        listener=events.silent if again else run.listener,
        nodes=asked(run.compiled),
        claims={"strays": whole, "whole": acting},
    )
    found = orphans.find(resources, seen, retired=lambda *place: _retired(run.inventory, *place)) if whole else ()
    gone = orphans.removed(found, resources, prune=run.prune)
    if gone:
        more = observe(fleet, gone)
        silent = {**seen.unreachable, **more.unreachable}
        seen = dataclasses.replace(seen, found={**seen.found, **more.found}, unreachable=silent)
    going = {each.id for each in gone}
    staying = tuple(each for each in found if each.id not in going)
    all_resources = (*orphans.behind(resources, gone, found), *gone)
    judged, left = orphans.judged(resources, seen, staying)
    plan = build(
        all_resources,
        seen,
        accept=run.inventory.accept,
        today=datetime.datetime.now(datetime.timezone.utc).date(),
        notices=(*run.compiled.notices, *(f"{each} stays: another cluster uses it" for each in sorted(left))),
        replace=run.replace,
        judged=judged,
        left=left,
    )
    dark = {f"claims @{node}": each for node, each in seen.claims.items() if isinstance(each, Unknown)}
    plan = dataclasses.replace(
        plan,
        unknown={**plan.unknown, **dark},
        nodes=tuple(dict.fromkeys([*plan.nodes, *asked(run.compiled)])),
        total=len(resources),
        orphans=staying,
    )
    upstreams, ways = transfers.arrange(
        plan, all_resources, seen, lambda node: address(run.inventory, fleet.targets[node])
    )
    plan = dataclasses.replace(plan, notices=(*plan.notices, *ways))
    notes = orphans.notes(resources, seen, plan, prune=run.prune) if acting else {}
    return View(resources=all_resources, upstreams=upstreams, seen=seen, plan=plan, notes=notes)


def _retired(inventory: Inventory, node: str, service: str | None) -> bool:
    declared = inventory.services.get(service) if service else None
    return inventory.nodes[node].state == "retired" or (declared is not None and declared.state == "retired")


def note(fleet: Fleet, view: View) -> Plan:
    """Bring the records of claims up to date; the plan, with what could not be noted among its notices."""

    def write(node: str, session: Session) -> None:
        session.call("claimed.note", {**(session.claims or {}), **view.notes[node]}, timeout=30)

    answers = fleet.each([node for node in view.notes if node not in fleet.failed], write)
    failed = [f"{node}: {error.what}" for node, error in answers.items() if isinstance(error, SparkopsError)]
    return dataclasses.replace(view.plan, notices=(*view.plan.notices, *failed))
