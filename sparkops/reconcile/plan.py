"""From resources and observations to a Plan: steps in order, violations, what is unknown and what that blocks. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sparkops.core import graph
from sparkops.core.errors import InventoryError
from sparkops.core.plan import Declared, Orphan, Plan, Step, Violation
from sparkops.core.states import Observed, Unknown
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Accept, accepting
from sparkops.reconcile import between_nodes
from sparkops.reconcile.diff import Difference, diff
from sparkops.resources.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What the nodes answered. `found` by resource id; `facts`, `unreachable` (why) and `claims` by node.

    `machines` tells by node which machine it is, where that is known.
    """

    found: Mapping[str, Observed]
    facts: Mapping[str, Mapping[str, object] | Unknown] = field(default_factory=dict)
    unreachable: Mapping[str, Message] = field(default_factory=dict)
    claims: Mapping[str, Observed] = field(default_factory=dict)
    machines: Mapping[str, str] = field(default_factory=dict)


def ordered(
    resources: Iterable[Resource], edges: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[tuple[Resource, tuple[str, ...]], ...]:
    """The resources, each with what it comes after and behind that. Raises InventoryError for a cycle."""
    by_id = {resource.id: resource for resource in resources}
    after = {id: (*resource.after, *edges.get(id, ())) for id, resource in by_id.items()}
    try:
        return tuple((by_id[id], after[id]) for id in graph.ordered(after))
    except graph.Cycle as error:
        raise InventoryError.of("plan-order-cycle", reason=str(error)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `resources` come to beside what was `seen`, in an order that respects the steps' needs."""

    resources: tuple[Resource, ...]
    seen: Observations
    steps: tuple[Step, ...]
    violations: tuple[Violation, ...]
    unknown: Mapping[str, Unknown]
    blocked: Mapping[str, Message]
    notices: tuple[Message, ...]

    def plan(
        self,
        *,
        nodes: Sequence[str] = (),
        total: int | None = None,
        notices: Sequence[Message] | None = None,
        unknown: Mapping[str, Unknown] = MappingProxyType({}),
        orphans: Sequence[Orphan] = (),
        declared: Sequence[Declared] = (),
    ) -> Plan:
        """The plan, with what is known beside the comparison. `total` and `notices` take the place of its own."""
        return Plan(
            steps=self.steps,
            violations=self.violations,
            unknown={**self.unknown, **unknown},
            unreachable=self.seen.unreachable,
            blocked=self.blocked,
            notices=tuple(self.notices if notices is None else notices),
            nodes=tuple(dict.fromkeys([*(resource.node for resource in self.resources), *nodes])),
            total=len(self.resources) if total is None else total,
            orphans=tuple(orphans),
            declared=tuple(declared),
            between=between_nodes.compare(self.resources, self.seen.found),
        )


def compare(
    resources: Sequence[Resource],
    seen: Observations,
    *,
    accept: Sequence[Accept] = (),
    today: datetime.date,
    replace: Collection[str] = (),
    prove: Collection[str] = (),
    violations: Mapping[str, Sequence[Violation]] = MappingProxyType({}),
    left: Collection[str] = (),
    edges: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Comparison:
    """Compare these resources with what was seen. `today` decides which `accept` entries have run out.

    The things with the ids in `replace` are made anew, whether they differ or not, those in `prove` proven again.
    `violations` holds those that no kind knows of, by resource id: they block that resource too. `left` holds the ids
    of what is not to be removed. `edges` maps ids to those that they come after beside their own `after`.
    """
    builder = _Builder(seen, {each.id: each for each in accept}, today, replace, prove, violations, left)
    builder.judge_nodes()
    for resource, after in ordered(resources, edges):
        builder.add(resource, after)
    return Comparison(
        resources=tuple(resources),
        seen=seen,
        steps=tuple(builder.steps.values()),
        violations=tuple(builder.violations),
        unknown=builder.unknown,
        blocked=builder.blocked,
        notices=tuple(builder.notices),
    )


@dataclass(frozen=True, slots=True)
class _Compared:
    """What one resource comes to: a step, nothing, or not known."""

    violations: tuple[Violation, ...]
    notices: tuple[Message, ...]
    step: Step | Unknown | None


@dataclass(eq=False)
class _Builder:
    """Walks the resources in order, so that everything that one stands on is known before it."""

    seen: Observations
    accept: Mapping[str, Accept]
    today: datetime.date
    replace: Collection[str]
    prove: Collection[str]
    violations_by_id: Mapping[str, Sequence[Violation]]
    left: Collection[str]

    def __post_init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.violations: list[Violation] = []
        self.unknown: dict[str, Unknown] = {}
        self.blocked: dict[str, Message] = {}
        self.notices: list[Message] = []
        self._held: dict[str, Message | None] = {}
        self._needs: dict[str, tuple[str, ...]] = {}
        self._barrier: dict[str, Message] = {}

    def judge_nodes(self) -> None:
        """Hold every node whose machine has another name in the inventory too."""
        for node, machine in self.seen.machines.items():
            others = [each for each in self.seen.machines if each != node and self.seen.machines[each] == machine]
            if machine and others:
                self._held[node] = self._judge(_one_machine(node, others))

    def add(self, resource: Resource, after: Sequence[str]) -> None:
        needs = tuple(dict.fromkeys(each for up in after for each in self._upstream(up)))
        self._needs[resource.id] = needs
        barrier = self._held.get(resource.node)
        barrier = barrier or next((self._barrier[up] for up in after if up in self._barrier), None)
        barrier = barrier or self._silent_peer(resource)
        barrier = barrier or self._judge(*self.violations_by_id.get(resource.id, ()))
        compared = self._compare(resource, self._found(resource), needs)
        own = self._judge(*compared.violations)
        barrier = barrier or (own if resource.guarded else None)
        self.notices += compared.notices
        if isinstance(compared.step, Unknown):
            if resource.node not in self.seen.unreachable:
                self.unknown[resource.id] = compared.step
            if resource.essential:
                own = own or Message.of("blocked-by-unknown", resource=resource.id, reason=compared.step)
        elif compared.step is not None:
            self.steps[resource.id] = compared.step
            if barrier:
                self.blocked[resource.id] = barrier
        if stopped := barrier or own:
            self._barrier[resource.id] = stopped

    def _compare(self, resource: Resource, found: Observed, needs: tuple[str, ...]) -> _Compared:
        lookup = self.seen.found.get
        violations = tuple(resource.violations(found, lambda each: lookup(each, Unknown.of("not-asked"))))
        notices = tuple(resource.notices(found))
        if isinstance(found, Unknown):
            again = (
                resource.reproved and self._needs_proof(resource, needs) and resource.node not in self.seen.unreachable
            )
            return _Compared(violations, notices, step_for(resource, None, found, needs) if again else found)
        difference = self._difference(resource, found)
        if isinstance(difference, Unknown):
            return _Compared(violations, notices, difference)
        if difference is None and not self._needs_proof(resource, needs):
            return _Compared(violations, notices, None)
        return _Compared(violations, notices, step_for(resource, difference, found, needs))

    def _found(self, resource: Resource) -> Observed:
        if resource.node in self.seen.unreachable:
            silent = self.seen.unreachable[resource.node]
            return Unknown(silent.id, silent.args)
        return self.seen.found.get(resource.id, Unknown.of("not-answered"))

    def _difference(self, resource: Resource, found: Observed) -> Difference | Unknown | None:
        if resource.id in self.left:
            return None
        facts, again = self.seen.facts.get(resource.node, {}), resource.id in self.replace
        return diff(resource, found, facts, resource.pending(self.steps, found), replace=again)

    def _upstream(self, up: str) -> tuple[str, ...]:
        return (up,) if up in self.steps else self._needs.get(up, ())

    def _needs_proof(self, resource: Resource, needs: tuple[str, ...]) -> bool:
        nodes = resource.engine_nodes or resource.peer_nodes or (resource.node,)
        changed = [self.steps[each] for each in needs]
        again = resource.reproved and any(
            step.node in nodes and (step.service == resource.service or (step.service is None and step.disruptive))
            for step in changed
        )
        return again or resource.id in self.prove

    def _silent_peer(self, resource: Resource) -> Message | None:
        silent = [node for node in resource.peer_nodes if node in self.seen.unreachable]
        return Message.of("service-node-silent", node=silent[0], service=resource.service) if silent else None

    def _judge(self, *violations: Violation) -> Message | None:
        """Record the violations; the first one that blocks."""
        blocking: Message | None = None
        for violation in violations:
            judged = self._accepted(violation)
            self.violations.append(judged)
            if judged.blocks and blocking is None:
                blocking = Message.of("blocked-by-violation", violation=judged.id, reason=judged.message)
        return blocking

    def _accepted(self, violation: Violation) -> Violation:
        entry = accepting(self.accept.values(), self.today, violation.id)
        if entry is not None:
            return replace(violation, accepted=entry.words)
        if violation.id in self.accept:
            until = str(self.accept[violation.id].until)
            self.notices.append(Message.of("acceptance-expired", violation=violation.id, until=until))
        return violation


def _one_machine(node: str, others: Sequence[str]) -> Violation:
    message = Message.of("machine-with-two-names", nodes=[node, *others])
    return Violation(message=message, resource="", node=node, severity="error", source="machine-id(5)")


def step_for(resource: Resource, difference: Difference | None, found: Observed, needs: tuple[str, ...]) -> Step:
    """The step for a difference; without one, the step that proves the resource again, whatever it is before."""
    state = {} if isinstance(found, Unknown) else found
    if difference is None:
        difference = Difference("verify", state, resource.desired(), ())
    disruptive = resource.disrupts(difference.before, difference.after, difference.changes)
    return Step(
        id=resource.id,
        kind=resource.kind,
        node=resource.node,
        action=difference.action,
        before=difference.before,
        after=difference.after,
        changes=difference.changes,
        needs=needs,
        disruptive=disruptive,
        outage_seconds=resource.outage_seconds(found) if disruptive else None,
        service=resource.service,
        role=resource.role,
        diff=resource.text_diff(state) if difference.action != "verify" else "",
    )
