"""`require`: what a node has to be, judged on its facts and never repaired: driver, kernel, memory, disk, runtime.

It is named by a group of facts (`worker/requests/facts.py`). Expectations see one group; several requirements of the
same group tell each other apart by `label`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from sparkops.core.plan import Violation
from sparkops.core.states import Observed, State, Unknown
from sparkops.core.wording import Message, Severity
from sparkops.resources.expectation import Expectation, Judgement, judge, judge_service, parse
from sparkops.resources.resource import Peers, Resource


@dataclass(frozen=True, kw_only=True)
class Require(Resource):
    """Expectations on the facts of the group `name`.

    A violation's id is `LABEL.KEY-FAULT` (`gpu.driver-version-denied`), where an expectation's `id` stands for
    `LABEL.KEY`; it is the same on all nodes, so that one `accept` can cover a fleet.

    expect: a fact's key in the group (dotted for nested ones) to a value, or to the words of `Expectation`.
    args: arguments of the group; `disk` takes `path`.
    label: the first part of the ids; else the group's name.
    severity: of expectations that declare none.
    remedy: of expectations that declare none.
    """

    kind: ClassVar[str] = "require"
    claimed: ClassVar[bool] = False

    expect: Mapping[str, object]
    args: Mapping[str, object] = field(default_factory=dict)
    label: str = ""
    severity: Severity = "error"
    remedy: str = ""

    def __post_init__(self) -> None:
        for declared in self.expect.values():
            parse(declared, self.where)

    @property
    def id(self) -> str:
        return self.id_on(self.node)

    def id_on(self, node: str) -> str:
        """The id of the same requirement on another node; a service's own carries the service's name."""
        of = f" of {self.service}" if self.service else ""
        return f"{self.kind} {self.label or self.name}{of} @{node}"

    @property
    def essential(self) -> bool:
        """What could only warn holds nothing up while it is unknown."""
        return self.severity == "error"

    @property
    def expectations(self) -> dict[str, Expectation]:
        return {key: parse(declared, self.where) for key, declared in self.expect.items()}

    def ask(self) -> dict[str, object]:
        return {"group": self.name, "args": dict(self.args), "keys": sorted(self.expect)}

    def desired(self) -> State:
        return {}

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        if isinstance(found, Unknown) or found is None:
            return ()
        if found.get("present") is False:
            return self._absent(found)
        wrong = []
        for key, expected in self.expectations.items():
            judgement = judge(key, expected, found.get(key))
            if judgement is not None:
                wrong.append(self._violation(key, expected, judgement))
            elif expected.equal_on_service or expected.distinct_on_service:
                wrong += self._compared(key, expected, found, peers)
        return tuple(wrong)

    def _absent(self, found: Mapping[str, object]) -> tuple[Violation, ...]:
        if all(each.optional for each in self.expectations.values()):
            return ()
        why = found.get("reason")
        absent = Message.of("fact-absent", group=self.name, text=found.get("error") or "", remedy=self.remedy)
        message = absent if why is None else Message.from_json(why)
        return (self.violation(message, self.severity, key=f"{self.label or self.name}.absent"),)

    def _compared(
        self, key: str, expected: Expectation, found: Mapping[str, object], peers: Peers
    ) -> tuple[Violation, ...]:
        """Each node of a pair that differs is judged in the same words, so that neither is touched alone."""
        by_node = {self.node: found.get(key)}
        for node in self.peer_nodes:
            other = found if node == self.node else peers(self.id_on(node))
            if isinstance(other, Mapping) and other.get("present") is not False:
                by_node[node] = other.get(key)
        judgement = judge_service(key, expected, by_node)
        return (self._violation(key, expected, judgement),) if judgement is not None else ()

    def _violation(self, key: str, expected: Expectation, judgement: Judgement) -> Violation:
        name = expected.id or f"{self.label or self.name}.{key.replace('_', '-')}"
        message = Message.of(
            judgement.id,
            fact=expected.title or f"{self.name}.{key}",
            reason=expected.reason,
            remedy=expected.remedy or judgement.remedy or self.remedy,
            **judgement.args,
        )
        severity = judgement.severity or expected.severity or self.severity
        source = expected.source or judgement.source
        return self.violation(message, severity, key=f"{name}-{judgement.fault}", source=source)
