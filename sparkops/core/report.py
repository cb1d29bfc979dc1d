"""The one Report of a run; the renderers in `reports/` show it as text, JSON or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sparkops.core.plan import Plan
from sparkops.core.states import State
from sparkops.core.wording import Message

Command: TypeAlias = Literal["plan", "drift", "apply", "start", "stop", "restart", "adopt", "remove", "rollback"]
Origin: TypeAlias = Literal["corrective", "intentional", "both", "new"]
Outcome: TypeAlias = Literal["done", "failed", "not-attempted", "unknown", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one step ended. `reason` is None when it is done; `detail` is e.g. the engine's last lines.

    `found` is what was there afterwards, where that is known; `notices` is what it told meanwhile.
    """

    id: str
    node: str
    outcome: Outcome
    seconds: float = 0.0
    reason: Message | None = None
    detail: str = ""
    found: State = field(default=None, repr=False)
    notices: tuple[Message, ...] = ()


RolloutState: TypeAlias = Literal[
    "done", "not started", "paused", "failed", "returned", "return failed", "nothing to return to"
]
HELD = "generation-held"
"""The violation of what was taken back and is declared still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How one engine of a service ended that an apply was to interrupt; `nodes` are the engine's, the head first.

    done: changed and proven. not started: something before it failed, its engine was not touched. paused: what it
    answered proves nothing, it was left as it is. failed: it was not brought back, since that is switched off.
    returned: it failed and its last stable generation is ready again. `reason` is why a return failed.
    """

    service: str
    nodes: tuple[str, ...]
    state: RolloutState
    reason: Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The first run in which something stood as it stands now, and its end (seconds since the epoch, UTC)."""

    run: str
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRun:
    """One kept run in a line. `counts` maps the states of resources (as-declared, drifted, …) to how many there were.

    `time` is its end in seconds since the epoch; `exit_status` None for a run that did not come to its end.
    """

    run: str
    cluster: str
    command: str
    time: float
    seconds: float
    exit_status: int | None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What earlier runs of this machine add to a report; everything is empty where none is kept.

    runs: the latest before this one, oldest first. since: by the sign of a finding (its id and what it is about), since
    when it stands. origins: by resource, whether the node moved (corrective), the
    declaration did (intentional), both, or it has not been as declared in any kept run (new). took: seconds that
    the last step on the resource took.
    """

    runs: tuple[KeptRun, ...] = ()
    since: Mapping[str, Seen] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    took: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shards:
    """Which parts of an inventory's nodes a report is of, by their numbers from 1, and of how many."""

    numbers: tuple[int, ...]
    of: int

    @property
    def missing(self) -> tuple[int, ...]:
        """The other parts."""
        return tuple(number for number in range(1, self.of + 1) if number not in self.numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A plan and, after an apply, what became of it. `endpoints` maps services (`SERVICE`, or `SERVICE @HEAD` of each
    engine) to their URLs.

    `time` is its end in seconds since the epoch (UTC); `run` names it among the kept runs, or is empty. `whole`:
    nothing of the inventory (with `shards`: of these parts of it) was left out, so that what is no longer declared was
    looked for. `unrecorded`: what went wrong with keeping this run on this machine, if anything did.
    """

    command: Command
    cluster: str
    inventory: str
    plan: Plan
    results: tuple[Result, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    rollouts: tuple[Rollout, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
    declined: bool = False
    run: str = ""
    time: float = 0.0
    whole: bool = False
    shards: Shards | None = None
    past: Past = Past()
    unrecorded: tuple[Message, ...] = ()

    @property
    def exit_status(self) -> int:
        """0 as declared, 2 something differs or was declined, 3 unknown, 4 failed, 5 held, 130 interrupted."""
        if self.interrupted:
            return 130
        if any(violation.id == HELD and violation.blocks for violation in self.plan.violations):
            return 5
        if self.command in ("plan", "drift") or (self.command == "remove" and not self.results):
            return self.plan.exit_status
        if self.declined:
            return 2
        if any(result.outcome != "done" for result in self.results) or self.plan.blocked:
            return 4
        if any(violation.blocks for violation in self.plan.violations):
            return 4
        return 3 if self.plan.unknown or self.plan.unreachable else 0
