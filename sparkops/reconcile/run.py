"""The one road: observe → plan, and where it is agreed to → lock → observe again → converge → record → Report.

What commands differ in is which resources they choose, and their RunOptions.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from sparkops.core import events
from sparkops.core.errors import ConvergeFailed, SparkopsError
from sparkops.core.plan import Plan
from sparkops.core.report import Report, Result, Shards
from sparkops.core.wording import Message
from sparkops.nodes import bundle
from sparkops.reconcile import rollout
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.history import KIND, actor, by_node, record
from sparkops.reconcile.observe import CLAIMS, FACTS, fact_paths, prepare, waiting
from sparkops.reconcile.planning import Planned, RunOptions, observe_and_plan, write_claims
from sparkops.reconcile.rollout import RolloutProgress
from sparkops.reconcile.schedule import Schedule
from sparkops.reconcile.targets import targets, urls
from sparkops.resources import removable
from sparkops.resources.drain import Drain
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit


def run(resources: Sequence[Resource], options: RunOptions, kept: Fleet | None = None) -> Report:
    """Bring these resources into their declared state, or only plan it; over a fleet that is `kept` open, if given.

    Raises LockBusy, Stale where a saved plan no longer holds, ConvergeFailed: in all cases nothing was changed.
    """
    started = time.monotonic()
    shard = options.inventory.shard

    def report(plan: Plan, **more: Any) -> Report:
        return Report(
            command=options.command,
            cluster=options.inventory.cluster,
            inventory=str(options.inventory.path),
            plan=plan,
            endpoints=urls(options.inventory, plan.nodes),
            seconds=time.monotonic() - started,
            time=time.time(),
            whole=bool(options.whole) or (shard is not None and not shard.nodes),
            shards=Shards((shard.number,), shard.of) if shard is not None else None,
            **more,
        )

    prepared, unprepared = prepare(resources)
    with contextlib.nullcontext(kept) if kept is not None else fleet_of(prepared, options) as fleet:
        planned = observe_and_plan(fleet, prepared, unprepared, options, quiet=False)
        if options.agree is None:
            return report(planned.plan)
        agreed = options.agree(report(planned.plan))
        if not planned.plan.steps:
            _claim(fleet, planned, options)
            return report(planned.plan)
        if not agreed:
            return report(planned.plan, declined=True)
        touched = {step.node for step in planned.plan.steps} | planned.claims.keys()
        fleet.lock(sorted(touched - planned.plan.held - fleet.failed.keys()), actor(options.title))
        again = observe_and_plan(fleet, prepared, unprepared, options, quiet=True)
        _refuse_interruptions(planned.plan, again.plan, options.interrupting)
        results = _carry_out(fleet, again, options)
        return report(
            again.plan,
            results=results,
            interrupted=any(result.outcome == "interrupted" for result in results),
            rollouts=rollout.outcomes(again.resources, again.plan, results, options.replicas),
        )


def _carry_out(fleet: Fleet, planned: Planned, options: RunOptions) -> tuple[Result, ...]:
    """Claim, converge and record, under the nodes' locks; what the report says of it."""
    write_claims(fleet, planned)
    results = Schedule(
        planned,
        fleet,
        stop=options.stop,
        saved=options.saved is not None,
        interrupting=options.interrupting,
        rollouts=RolloutProgress(planned.plan, planned.resources, options.replicas, options.limits),
    ).run()
    done = by_node(planned.plan.steps, results)
    record(fleet, options.inventory, options.title, done, reason=options.reason)
    fleet.unlock()
    return results


def _claim(fleet: Fleet, planned: Planned, options: RunOptions) -> None:
    """Claim what is right already. Where that can't be done it is said: the nodes are as declared all the same."""
    try:
        fleet.lock(sorted(planned.claims.keys() - fleet.failed.keys()), actor(options.title))
    except SparkopsError as error:
        message = Message.of("claims-not-written", node=error.where or None, reason=error.message)
        fleet.listener(events.Notice(message=message))
        return
    write_claims(fleet, planned)
    fleet.unlock()


def fleet_of(resources: Sequence[Resource], options: RunOptions) -> Fleet:
    """The nodes of these resources with the worker's modules that a run over them needs; nothing is opened yet."""
    kinds = {*options.modules, *(resource.kind for resource in resources)}
    kinds |= {Drain.kind} if options.rolled and Unit.kind in kinds else frozenset()
    if options.declared:
        states = [each.state for each in options.inventory.nodes.values()]
        states += [each.state for each in options.inventory.services.values()]
        kinds |= {CLAIMS, *(removable() if options.prune or "retired" in states else ())}
    if options.agree is not None:
        kinds.add(KIND)
    facts_of = [fact.node for resource in resources for fact in waiting(resource)]
    if facts_of or any(True for resource in resources for _ in fact_paths(resource.desired())):
        kinds.add(FACTS)
    nodes = {*options.whole, *(resource.node for resource in resources), *facts_of}
    return Fleet(
        {name: target for name, target in targets(options.inventory, options.secrets).items() if name in nodes},
        cluster=options.inventory.cluster if options.declared else "",
        former=options.inventory.renamed_from,
        connections=options.connections,
        program=bundle.kinds_bundle(kinds),
        listener=options.listener,
        jobs=options.jobs,
    )


def _refuse_interruptions(shown: Plan, now: Plan, interrupting: frozenset[str]) -> None:
    """What interrupts service and was not in the plan that was agreed to is not done."""
    agreed = {step.id for step in shown.disruptive} | interrupting
    if new := [step.id for step in now.disruptive if step.id not in agreed]:
        raise ConvergeFailed.of("plan-would-interrupt", new=", ".join(new))
