"""How far the rollouts of a run are: whether one may go on after a failure, and whether it stands still.

It must not know how a step is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from sparkops.core.plan import Plan
from sparkops.core.report import Result
from sparkops.reconcile.rollout import Engine, Engines, Limits, engines, interrupted, state_of
from sparkops.resources.generation import Generation
from sparkops.resources.resource import Resource


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
