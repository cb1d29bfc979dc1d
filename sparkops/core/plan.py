"""The plan: what differs, as values. A Step per resource that is not as declared; Violations beside them.

Nothing here acts, connects or knows a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sparkops.core.states import State, Unknown
from sparkops.core.wording import Message, Severity

Action: TypeAlias = Literal["create", "update", "delete", "replace", "verify"]
FOR_GC = "orphan-left-for-gc"
"""Why an orphan is left that `sparkops gc` removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """What sparkops must not repair itself. An error blocks what depends on `resource`; without one, all on `node`.

    `key` is what `accept` names where that is not the message's id: `ID:THING`, or `REQUIREMENT.FACT-FAULT`.
    """

    message: Message
    resource: str
    node: str
    severity: Severity
    key: str = ""
    source: str = ""
    accepted: str = ""

    @property
    def id(self) -> str:
        return self.key or self.message.id

    @property
    def blocks(self) -> bool:
        return self.severity == "error" and not self.accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One resource to bring from `before` to `after`; `changes` names the keys that differ.

    `diff` is a unified text diff where the kind gives one. `verify` steps look, they change nothing: the
    resource has to be proven again because something that it stands on is about to change. `replace` steps do a thing
    again that may be as declared, because a person asked for it. `outage_seconds` is how long the service that a
    disruptive step interrupts took at its last start, from the container to the first token; None where not known.
    """

    id: str
    kind: str
    node: str
    action: Action
    before: State
    after: State
    changes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    disruptive: bool = False
    outage_seconds: float | None = None
    service: str | None = None
    role: str = ""
    diff: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One declared resource. `where` is the place (`file:line:column`) of its service or node in the inventory.

    `keys` maps the keys of its declared state to digests of the values, "" for one that does not identify what is
    declared (a secret, what a later step brings about); None where it is declared absent. `found` has the digests of
    what the node has under these keys, of those that it has.
    """

    id: str
    kind: str
    name: str
    node: str
    service: str | None = None
    where: str = ""
    keys: Mapping[str, str] | None = field(default=None, repr=False)
    found: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """What a thing has on its node that nothing else can have beside it; "" and None for nothing."""

    path: str = ""
    unit: str = ""
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """What this cluster put on a node and no longer declares. `kept` says why `--prune` would leave it, if it would.

    `retired`: its service or node is declared retired, so that it goes unasked; `restores`: what stood there before
    sparkops is put back in its place.
    """

    id: str
    node: str
    kind: str
    name: str
    role: str = ""
    service: str | None = None
    occupied: Occupied = Occupied()
    kept: Message | None = None
    retired: bool = False
    restores: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A fact in which the nodes of a service differ, with each node's value: None where it has none, or Unknown."""

    service: str
    fact: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that differs, is violated or could not be known, over all nodes, in an order that respects `needs`.

    `unknown` maps the ids that could not be compared to the reason; `unreachable` nodes to theirs; `total` counts
    the resources that were declared, `declared` lists them. `orphans` holds those for which there is no step.
    `between` tells in what the nodes of a service differ from each other; that changes no exit status.
    """

    steps: tuple[Step, ...] = ()
    violations: tuple[Violation, ...] = ()
    unknown: Mapping[str, Unknown] = field(default_factory=dict)
    unreachable: Mapping[str, Message] = field(default_factory=dict)
    blocked: Mapping[str, Message] = field(default_factory=dict)
    notices: tuple[Message, ...] = ()
    nodes: tuple[str, ...] = ()
    total: int = 0
    orphans: tuple[Orphan, ...] = ()
    declared: tuple[Declared, ...] = ()
    between: tuple[Between, ...] = ()

    @property
    def disruptive(self) -> tuple[Step, ...]:
        """The steps by which carrying this out interrupts a service."""
        return tuple(step for step in self.steps if step.disruptive and step.id not in self.blocked)

    @property
    def held(self) -> frozenset[str]:
        """The nodes on which nothing may be done at all."""
        return frozenset(each.node for each in self.violations if each.blocks and not each.resource)

    @property
    def exit_status(self) -> int:
        """0 as declared, 2 something differs or is violated, 3 nothing differs but something is unknown."""
        left = any(not orphan.kept for orphan in self.orphans)
        if self.steps or left or any(violation.blocks for violation in self.violations):
            return 2
        return 3 if self.unknown or self.unreachable else 0
