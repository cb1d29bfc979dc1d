"""Carry out the steps of a plan: each as soon as what it needs is done, several at once, all nodes side by side.

A failed, unknown or blocked step takes down only what needs it. The worker compares each thing with the plan's `before`
once more as it begins; where an earlier step of the run, or a person, has changed it, the answer carries what is there
now, and the step is planned anew from that.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, replace

from sparkops.core import events
from sparkops.core.errors import Changed, ConnectionFailed, ConvergeFailed, Interrupted, NodeError, SparkopsError
from sparkops.core.graph import reachable
from sparkops.core.messages import reason_of
from sparkops.core.plan import Step
from sparkops.core.report import Outcome, Result
from sparkops.core.states import Facts, Observed, Pending, Unknown, resolve
from sparkops.core.wording import Message
from sparkops.nodes.session import UnknownState
from sparkops.reconcile.diff import diff
from sparkops.reconcile.fleet import RETURNING, Fleet
from sparkops.reconcile.planning import Planned
from sparkops.reconcile.rollout import RolloutProgress
from sparkops.resources.resource import Resource

PER_NODE = 4
"""Steps of one node that run at once: an image pull beside a checkpoint fetch, not fifty of them."""
TRIES, SETTLING = 5, 0.5
"""How often, and after how many seconds, a thing that moves while it is looked at (a unit that systemd starts again) is
compared anew."""


@dataclass(eq=False)
class Schedule:
    """One run over the steps of a plan. `stop` is set by the first interrupt: what runs is finished, nothing starts.

    `saved` says that the plan was saved: what no earlier step of it can have changed must still be as it says.
    `interrupting` as in RunOptions; `rollouts` is what a rollout goes by.
    """

    planned: Planned
    fleet: Fleet
    _: KW_ONLY
    stop: threading.Event
    saved: bool = False
    interrupting: frozenset[str] = frozenset()
    rollouts: RolloutProgress | None = None

    def __post_init__(self) -> None:
        self.plan, self.upstreams = self.planned.plan, self.planned.upstreams
        self.resources = {resource.id: resource for resource in self.planned.resources}
        self.results: dict[str, Result] = {}
        self._rollouts = self.rollouts or RolloutProgress(self.plan, self.planned.resources, {}, {})
        self._order = {step.id: number for number, step in enumerate(self.plan.steps)}
        self._changed = threading.Condition()
        self._stirred: list[Step] = []
        self._watching: dict[str, list[Step]] = defaultdict(list)
        self._queued: dict[str, list[Step]] = defaultdict(list)
        self._running: dict[str, dict[str, Step]] = defaultdict(dict)
        self._lost: set[str] = set()
        self._told: dict[str, list[Message]] = {}

    def run(self) -> tuple[Result, ...]:
        """The results in the plan's order, one for every step."""
        self._stirred = list(self.plan.steps)
        with ThreadPoolExecutor(max(1, len(self.plan.steps)), thread_name_prefix="step") as pool, self._changed:
            while len(self.results) < len(self.plan.steps):
                if self.stop.is_set():
                    begun = self.results.keys() | {id for each in self._running.values() for id in each}
                    self._stirred = [step for step in self.plan.steps if step.id not in begun]
                stirred, self._stirred = self._stirred, []
                for step in sorted(stirred, key=lambda step: self._order[step.id]):
                    self._consider(step, pool)
                if not self._stirred and len(self.results) < len(self.plan.steps):
                    self._changed.wait()
        return tuple(self.results[step.id] for step in self.plan.steps)

    def _consider(self, step: Step, pool: ThreadPoolExecutor) -> None:
        """Start or settle a step, or note what it waits for."""
        if self.stop.is_set():
            return self._settle(step, "interrupted", Message.of("run-stopped-before-step"))
        if why := self.plan.blocked.get(step.id):
            return self._settle(step, "not-attempted", why)
        for need in step.needs:
            if need not in self.results:
                return self._watching[need].append(step)
            below = self.results[need]
            if below.outcome != "done" and not self._rollouts.goes_on(step.id, need, self.results):
                root = below.reason if below.outcome == "not-attempted" else None
                return self._settle(step, "not-attempted", root or Message.of("blocked-by-step", step=need))
        source = self.upstreams[step.id].source if step.id in self.upstreams else None
        if source and source.id in self._order and not (source.streamed and source.id in self._running[source.node]):
            if source.id not in self.results:
                return self._watching[source.id].append(step)
            if self.results[source.id].outcome != "done":
                return self._settle(step, "not-attempted", Message.of("blocked-by-source", source=source.id))
        beside, word = self._running[step.node], self.resources[step.id].exclusive
        if len(beside) >= PER_NODE or (word and any(self.resources[each].exclusive == word for each in beside)):
            return self._queued[step.node].append(step)
        self._running[step.node][step.id] = step
        self._rollouts.begun(step.id)
        self._stirred += self._watching.pop(step.id, [])
        pool.submit(self._work, step)
        return None

    def _settle(self, step: Step, outcome: Outcome, reason: Message) -> None:
        result = Result(id=step.id, node=step.node, outcome=outcome, reason=reason)
        self._tell_end(result)
        self._end(result)

    def _end(self, result: Result) -> None:
        self.results[result.id] = result
        self._rollouts.ended(result)
        self._stirred += self._watching.pop(result.id, [])

    def _tell_end(self, result: Result) -> None:
        self.fleet.listener(
            events.StepFinished(
                node=result.node, id=result.id, outcome=result.outcome, seconds=result.seconds, reason=result.reason
            )
        )

    def _work(self, step: Step) -> None:
        started = time.monotonic()
        self.fleet.listener(events.StepStarted(node=step.node, id=step.id, action=step.action))
        outcome: Outcome = "done"
        reason: Message | None = None
        detail = ""
        found: Observed = None
        try:
            found, reason = self._brought(step)
            if reason:
                outcome, detail = "failed", self.resources[step.id].last_words(found)
        except Interrupted as error:
            outcome, reason = "interrupted", error.message
        except Changed as error:  # nothing was done, so that nothing of it has failed; but a saved plan is refused
            outcome, reason = "failed" if self.saved else "unknown", error.message
        except (NodeError, UnknownState) as error:
            if isinstance(error, ConnectionFailed):
                self.fleet.fail(step.node, error)
            outcome, reason = "unknown", error.message
        except SparkopsError as error:
            outcome, reason, detail = "failed", error.message, getattr(error, "detail", "")
        except Exception as error:  # noqa: BLE001 - a defect in one step must not hide the results of the others
            outcome, reason = "failed", Message(**reason_of(error))
        result = Result(
            id=step.id,
            node=step.node,
            outcome=outcome,
            seconds=time.monotonic() - started,
            reason=reason,
            detail=detail,
            found=found if isinstance(found, Mapping) else None,
            notices=tuple(self._told.get(step.id, ())),
        )
        self._tell_end(result)  # before what waits for it can begin, and while others may begin
        with self._changed:
            del self._running[step.node][step.id]
            self._stirred += self._queued.pop(step.node, [])
            self._end(result)
            self._changed.notify()

    def _brought(self, step: Step) -> tuple[Observed, Message | None]:
        """As `_bring`, and again from what is there then where the node was lost meanwhile and came back."""
        while True:
            session = self.fleet.session(step.node)
            try:
                return self._bring(step)
            except NodeError as error:
                if not self.fleet.reattach(step.node, session, error, self.stop, self._away(step.node)):
                    raise
                self._lost.add(step.node)

    def _away(self, node: str) -> float:
        """How long a lost node is waited for: longer while it reboots."""
        with self._changed:
            running = [self.resources[each].away_seconds for each in self._running[node]]
        return max(RETURNING, *(each or 0.0 for each in running))

    def _bring(self, step: Step) -> tuple[Observed, Message | None]:
        """Converge one resource and prove it: what is there now, and what is still wrong."""
        resource = self.resources[step.id]
        now = self._with_pending_values(resource, step)
        for last in (*[False] * TRIES, True):
            try:
                found = self._converge(resource, now)
            except Changed as changed:
                again = self._replanned(resource, step, changed)
                if again is None:
                    return changed.found, None
                if last or self.stop.wait(SETTLING):
                    raise
                now = again
            else:
                return found, self._proof(resource, found)
        raise AssertionError("the last try returns or raises")

    def _converge(self, resource: Resource, step: Step) -> Observed:
        session = self.fleet.session(step.node)
        upstream = self.upstreams.get(step.id) if step.after is not None else None
        work = (upstream or resource).converge(session, step)
        while True:
            try:
                progress = next(work)
            except StopIteration as done:
                found: Observed = done.value
                return found
            self._tell(step, progress)
            if resource.leavable and (seconds := self._rollouts.late(step.id)):
                work.close()
                raise ConvergeFailed.of("rollout-stands-still", where=step.node, seconds=seconds)
            if self.stop.is_set() and resource.leavable:
                session.leave()
                work.close()
                raise Interrupted.of("step-left")

    def _with_pending_values(self, resource: Resource, step: Step) -> Step:
        """The step with the values that earlier ones have brought about; those keys are compared anew by the worker."""
        pending = {key for key, value in (step.after or {}).items() if isinstance(value, Pending)}
        if not pending:
            return step
        before = None if step.before is None else {k: v for k, v in step.before.items() if k not in pending}
        return replace(step, before=before, after=resolve(resource.desired(), self._facts(resource)))

    def _replanned(self, resource: Resource, step: Step, changed: Changed) -> Step | None:
        """The step from what is there now; None where that is as declared. Raises where it may not be gone on."""
        by_run = self._changed_by_run(step)
        if self.saved and not by_run:
            raise changed
        again = diff(resource, changed.found, self._facts(resource), replace=step.action == "replace")
        if isinstance(again, Unknown):
            raise SparkopsError.of("state-unknown", where=resource.node, reason=again)
        if again is None:
            return None
        if again.disruptive and not step.disruptive and step.id not in self.interrupting:
            was = by_run and not resource.disrupts(step.before, again.after, again.changes)
            if not was:
                raise ConvergeFailed.of("interruption-not-planned", where=step.node, service=step.service or step.id)
        if self.saved and again.changes != step.changes:
            message = Message.of("step-changed-by-run", step=step.id, keys=list(again.changes))
            self.fleet.listener(events.Notice(node=step.node, message=message))
        return again

    def _changed_by_run(self, step: Step) -> bool:
        """Whether an earlier step of this run can have changed the thing, or this one before its node was lost."""
        if step.node in self._lost:
            return True
        earlier = reachable({each.id: each.needs for each in self.plan.steps}, step.id)
        return bool(earlier) and not all(self.resources[each].contained for each in (step.id, *earlier))

    def _facts(self, resource: Resource) -> Facts:
        return self.planned.facts.get(resource.node, {})

    def _proof(self, resource: Resource, found: Observed) -> Message | None:
        left = diff(resource, found, self._facts(resource))
        if left is None:
            return None
        if isinstance(left, Unknown):
            return Message.of("state-unknown-afterwards", reason=left)
        there, wanted = left.before or {}, left.after or {}
        pairs = [Message.of("key-differs", key=k, found=there.get(k), declared=wanted.get(k)) for k in left.changes]
        return resource.explain(found) or Message.of("still-differs", keys=pairs or [left.action])

    def _tell(self, step: Step, progress: Mapping[str, object]) -> None:
        if notice := progress.get("notice"):
            message = Message.from_json(notice)
            self._told.setdefault(step.id, []).append(message)
            self.fleet.listener(events.Notice(node=step.node, message=message))
            return
        self.fleet.listener(events.StepProgress.from_mapping(step.node, step.id, progress))
