"""From resources and observations to a Plan: steps in order, violations, what is unknown and what that blocks. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from sparkops.core import graph
from sparkops.core.errors import InventoryError
from sparkops.core.messages import UNKNOWN, Fields
from sparkops.core.plan import Between, Plan, Step, Violation
from sparkops.core.states import Observed, Unknown
from sparkops.core.wording import Message
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Accept, accepting
from sparkops.reconcile.diff import diff, proof
from sparkops.resources.rank import Rank
from sparkops.resources.resource import Resource

MEMORY_TOLERANCE = 0.05
"""Fraction by which makers' units of one size differ (119 or 121 GiB of 128 GB)."""


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

    @property
    def told(self) -> Mapping[str, Fields]:
        """The claims of the nodes that told them."""
        return {node: answer for node, answer in self.claims.items() if isinstance(answer, Mapping)}


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
) -> Plan:
    """The plan that these resources come to beside what was seen. `today` decides which `accept` entries have run out.

    The things with the ids in `replace` are made anew, whether they differ or not, those in `prove` proven again.
    `violations` holds those that no kind knows of, by resource id: they block that resource too. `left` holds the ids
    of what is not to be removed. `edges` maps ids to those that they come after beside their own `after`. Raises
    InventoryError for a cycle.
    """
    builder = _Builder(seen, {each.id: each for each in accept}, today, replace, prove, violations, left)
    builder.judge_nodes()
    by_id = {each.id: each for each in resources}
    after = {id: (*each.after, *edges.get(id, ())) for id, each in by_id.items()}
    try:
        for id in graph.ordered(after):
            builder.add(by_id[id], after[id])
    except graph.Cycle as error:
        raise InventoryError.of("plan-order-cycle", reason=str(error)) from None
    return Plan(
        steps=tuple(builder.steps.values()),
        violations=tuple(builder.violations),
        unknown=builder.unknown,
        unreachable=seen.unreachable,
        blocked=builder.blocked,
        notices=tuple(builder.notices),
        nodes=tuple(dict.fromkeys(each.node for each in resources)),
        total=len(resources),
        between=between_nodes(resources, seen.found),
    )


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
                message = Message.of("machine-with-two-names", nodes=[node, *others])
                why = Violation(message=message, resource="", node=node, severity="error", source="machine-id(5)")
                self._held[node] = self._judge(why)

    def add(self, resource: Resource, after: Sequence[str]) -> None:
        nearest = ([up] if up in self.steps else self._needs.get(up, ()) for up in after)
        needs = tuple(dict.fromkeys(each for ups in nearest for each in ups))
        self._needs[resource.id] = needs
        barrier = self._held.get(resource.node)
        barrier = barrier or next((self._barrier[up] for up in after if up in self._barrier), None)
        if silent := next((node for node in resource.peer_nodes if node in self.seen.unreachable), None):
            barrier = barrier or Message.of("service-node-silent", node=silent, service=resource.service)
        barrier = barrier or self._judge(*self.violations_by_id.get(resource.id, ()))
        found = self._found(resource)
        own = self._judge(*resource.violations(found, self._peer))
        barrier = barrier or (own if resource.guarded else None)
        self.notices += resource.notices(found)
        step = self._step(resource, found, needs)
        if isinstance(step, Unknown):
            if resource.node not in self.seen.unreachable:
                self.unknown[resource.id] = step
            if resource.essential:
                own = own or Message.of("blocked-by-unknown", resource=resource.id, reason=step)
        elif step is not None:
            self.steps[resource.id] = step
            if barrier:
                self.blocked[resource.id] = barrier
        if stopped := barrier or own:
            self._barrier[resource.id] = stopped

    def _step(self, resource: Resource, found: Observed, needs: tuple[str, ...]) -> Step | Unknown | None:
        """What one resource comes to: a step, nothing, or not known."""
        again = self._needs_proof(resource, needs)
        if isinstance(found, Unknown):
            proves = again and resource.reproved and resource.node not in self.seen.unreachable
            return proof(resource, found, needs) if proves else found
        facts = self.seen.facts.get(resource.node, {})
        pending = resource.pending(self.steps, found)
        anew = resource.id in self.replace or resource.outdated(found, self._peer)
        step = None
        if resource.id not in self.left:
            step = diff(resource, found, facts, pending, needs=needs, replace=anew)
        return proof(resource, found, needs) if step is None and again else step

    def _found(self, resource: Resource) -> Observed:
        if resource.node in self.seen.unreachable:
            silent = self.seen.unreachable[resource.node]
            return Unknown(silent.id, silent.args)
        return self.seen.found.get(resource.id, Unknown.of("not-answered"))

    def _peer(self, id: str) -> Observed:
        return self.seen.found.get(id, Unknown.of("not-asked"))

    def _needs_proof(self, resource: Resource, needs: tuple[str, ...]) -> bool:
        nodes = resource.engine_nodes or resource.peer_nodes or (resource.node,)
        changed = [self.steps[each] for each in needs]
        again = resource.reproved and any(
            step.node in nodes and (step.service == resource.service or (step.service is None and step.disruptive))
            for step in changed
        )
        return again or resource.id in self.prove

    def _judge(self, *violations: Violation) -> Message | None:
        """Record the violations; the first one that blocks."""
        blocking: Message | None = None
        for violation in violations:
            entry = accepting(self.accept.values(), self.today, violation.id)
            judged = violation if entry is None else replace(violation, accepted=entry.words)
            if entry is None and (expired := self.accept.get(violation.id)):
                until = str(expired.until)
                self.notices.append(Message.of("acceptance-expired", violation=violation.id, until=until))
            self.violations.append(judged)
            if judged.blocks and blocking is None:
                blocking = Message.of("blocked-by-violation", violation=judged.id, reason=judged.message)
        return blocking


def between_nodes(resources: Iterable[Resource], found: Mapping[str, Observed]) -> tuple[Between, ...]:
    """The facts in which ranks of one service differ from each other, beside what each is declared to be.

    A value that is not there (nothing runs) is compared with nothing. One that is unknown is no difference by itself;
    it is told where the others differ.
    """
    by_service: dict[str, dict[str, Mapping[str, object]]] = {}
    for each in resources:
        seen = found.get(each.id) if isinstance(each, Rank) else None
        if isinstance(seen, Mapping) and each.service:
            by_service.setdefault(each.service, {})[each.node] = seen
    differing = []
    for service, ranks in by_service.items():
        for fact in dict.fromkeys(key for seen in ranks.values() for key in seen if key not in Rank.reads):
            values = {node: _value(seen.get(fact)) for node, seen in ranks.items()}
            known = [each for each in values.values() if each is not None and not isinstance(each, Unknown)]
            if _differ(fact, known):
                differing.append(Between(service=service, fact=fact, values=values))
    return tuple(differing)


def _value(told: object) -> object:
    """A value as it stands in the section; a node may tell anything, so that what is not plain is text."""
    if isinstance(told, Mapping):
        return Unknown.from_json(told[UNKNOWN]) if UNKNOWN in told else str(dict(told))
    return told if told is None or isinstance(told, (str, int, float)) else str(told)


def _differ(fact: str, known: Sequence[object]) -> bool:
    sizes = [each for each in known if isinstance(each, (int, float))]
    if fact == "memory_bytes" and len(sizes) == len(known):
        return bool(sizes) and max(sizes) - min(sizes) > MEMORY_TOLERANCE * max(sizes)
    return len({str(each) for each in known}) > 1


def replaced(resources: Sequence[Resource], words: Iterable[str]) -> frozenset[str]:
    """The ids that `--replace` names by these words: an id, or one without its ` @NODE`, which then means every node.

    Raises InventoryError for a word that names nothing, and for what can't be done again.
    """
    found: set[str] = set()
    for word in words:
        named = [each for each in resources if word in (each.id, f"{each.kind} {each.name}")]
        if not named:
            known = {each.id for each in resources if each.replaceable}
            raise InventoryError.of("replace-not-found", word=word, suggestion=suggest(word, known))
        stuck = [each.id for each in named if not each.replaceable]
        if stuck:
            raise InventoryError.of("replace-not-possible", where=named[0].where, stuck=stuck[0])
        found |= {each.id for each in named}
    return frozenset(found)
