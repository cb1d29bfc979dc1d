"""From resources and observations to a Plan: steps in order, violations, what is unknown and what that blocks. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.core.plan import Plan, Step, Violation
from sparkops.core.states import Observed, Unknown
from sparkops.inventory.inventory import Accept
from sparkops.reconcile.diff import Difference, diff
from sparkops.resources.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What the nodes answered. `found` by resource id; `facts`, `unreachable` (why) and `claims` by node."""

    found: Mapping[str, Observed]
    facts: Mapping[str, Mapping[str, Any] | Unknown] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, Observed] = field(default_factory=dict)


def ordered(resources: Iterable[Resource]) -> tuple[Resource, ...]:
    """The resources so that each stands after those that it is `after`. Raises InventoryError for a cycle."""
    by_id = {resource.id: resource for resource in resources}
    graph = {resource.id: [each for each in resource.after if each in by_id] for resource in by_id.values()}
    try:
        return tuple(by_id[each] for each in TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise InventoryError(f"these wait for each other: {circle}", hint="take out one `after`") from None


def build(
    resources: Sequence[Resource],
    seen: Observations,
    *,
    accept: Sequence[Accept] = (),
    today: datetime.date,
    notices: Sequence[str] = (),
    replace: Collection[str] = (),
    judged: Mapping[str, Sequence[Violation]] = MappingProxyType({}),
    left: Collection[str] = (),
) -> Plan:
    """The plan for these resources. `today` decides which `accept` entries have run out.

    The things with the ids in `replace` are made anew, whether they differ or not. `judged` holds violations that no
    kind knows of, by resource id: they block that resource too. `left` holds the ids of what is not to be removed.
    """
    builder = _Builder(seen, {each.id: each for each in accept}, today, replace, judged, left)
    for resource in ordered(resources):
        builder.add(resource)
    return Plan(
        steps=tuple(builder.steps.values()),
        violations=tuple(builder.violations),
        unknown=builder.unknown,
        unreachable=seen.unreachable,
        blocked=builder.blocked,
        notices=(*notices, *builder.notices),
        nodes=tuple(dict.fromkeys(resource.node for resource in resources)),
        total=len(resources),
    )


class _Builder:
    """Walks the resources in order, so that everything that one stands on is known before it."""

    def __init__(
        self,
        seen: Observations,
        accept: Mapping[str, Accept],
        today: datetime.date,
        replace: Collection[str],
        judged: Mapping[str, Sequence[Violation]],
        left: Collection[str],
    ) -> None:
        self.seen = seen
        self.replace = replace
        self.judged = judged
        self.left = left
        self.accept = accept
        self.today = today
        self.steps: dict[str, Step] = {}
        self.violations: list[Violation] = []
        self.unknown: dict[str, Unknown] = {}
        self.blocked: dict[str, str] = {}
        self.notices: list[str] = []
        self._needs: dict[str, tuple[str, ...]] = {}
        self._barrier: dict[str, str] = {}

    def add(self, resource: Resource) -> None:
        found = self._found(resource)
        needs = tuple(dict.fromkeys(each for up in resource.after for each in self._upstream(up)))
        self._needs[resource.id] = needs
        barrier = next((self._barrier[up] for up in resource.after if up in self._barrier), "")
        barrier = barrier or self._silent_peer(resource)
        barrier = barrier or self._judge(resource, self.judged.get(resource.id, ()))
        lookup = self.seen.found.get
        own = self._judge(resource, resource.violations(found, lambda each: lookup(each, Unknown("not asked"))))
        self.notices += resource.notices(found)
        difference = self._difference(resource, found) if resource.converged else None
        if isinstance(found, Unknown) or isinstance(difference, Unknown):
            why = found if isinstance(found, Unknown) else difference
            assert isinstance(why, Unknown)
            if resource.node not in self.seen.unreachable:
                self.unknown[resource.id] = why
            if resource.essential:
                own = own or f"{resource.id} is unknown ({why.why})"
        elif difference is not None or self._needs_proof(resource, needs):
            self.steps[resource.id] = step_for(resource, difference, found, needs)
            if barrier:
                self.blocked[resource.id] = barrier
        if own or barrier:
            self._barrier[resource.id] = barrier or own

    def _difference(self, resource: Resource, found: Observed) -> Difference | Unknown | None:
        if resource.id in self.left:
            return None
        facts, again = self.seen.facts.get(resource.node, {}), resource.id in self.replace
        return diff(resource, found, facts, resource.pending(self.steps), replace=again)

    def _found(self, resource: Resource) -> Observed:
        if resource.node in self.seen.unreachable:
            return Unknown(self.seen.unreachable[resource.node])
        return self.seen.found.get(resource.id, Unknown("the node did not answer for it"))

    def _upstream(self, up: str) -> tuple[str, ...]:
        return (up,) if up in self.steps else self._needs.get(up, ())

    def _needs_proof(self, resource: Resource, needs: tuple[str, ...]) -> bool:
        return resource.reproved and any(self.steps[each].service == resource.service for each in needs)

    def _silent_peer(self, resource: Resource) -> str:
        silent = [node for node in resource.peer_nodes if node in self.seen.unreachable]
        return f"node {silent[0]} of service {resource.service} does not answer" if silent else ""

    def _judge(self, resource: Resource, violations: Iterable[Violation]) -> str:
        """Record the violations; the words of the first one that blocks, or empty."""
        words = ""
        for violation in violations:
            judged = self._accepted(violation)
            self.violations.append(judged)
            if judged.blocks and not words:
                words = f"{judged.id}: {judged.message}"
        return words

    def _accepted(self, violation: Violation) -> Violation:
        entry = self.accept.get(violation.id)
        if entry is None:
            return violation
        if entry.until and datetime.date.fromisoformat(entry.until) < self.today:
            self.notices.append(f"the acceptance of {entry.id} ran out on {entry.until}")
            return violation
        until = f" until {entry.until}" if entry.until else ""
        return replace(violation, accepted=f"{entry.reason}{until}")


def step_for(resource: Resource, difference: Difference | None, found: Observed, needs: tuple[str, ...]) -> Step:
    """The step for a difference; without one, the step that proves the resource again."""
    state = None if isinstance(found, Unknown) else found
    if difference is None:
        difference = Difference("verify", state, resource.desired(), ())
    return Step(
        id=resource.id,
        kind=resource.kind,
        node=resource.node,
        action=difference.action,
        before=difference.before,
        after=difference.after,
        changes=difference.changes,
        needs=needs,
        disruptive=resource.disrupts(difference.before, difference.after, difference.changes),
        service=resource.service,
        role=resource.role,
        diff=resource.text_diff(state) if difference.action != "verify" else "",
    )
