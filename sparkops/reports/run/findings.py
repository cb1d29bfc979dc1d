"""What a report finds, one value for each: which state a resource is in, how bad that is, since when, and the way out.

Every format but text shows these. Pure; it must not know how any format looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sparkops.core.plan import Orphan, Step
from sparkops.core.report import Origin, Report, Result, RolloutState, Seen
from sparkops.core.wording import Message, Severity
from sparkops.reports.formatting import why_differs

Standing: TypeAlias = Literal["as-declared", "drifted", "violation", "unknown"]
STANDINGS: tuple[Standing, ...] = ("as-declared", "unknown", "drifted", "violation")
"""From the best to the worst."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
BROUGHT_BACK = ("file", "unit")
"""The kinds of what the return of a failed engine changes again."""
RETURNS: Mapping[RolloutState, tuple[str, Standing]] = {
    "returned": ("drift-taken-back", "drifted"),
    "return failed": ("drift-return-failed", "unknown"),
}
"""What is to be said of that after a return, and its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as declared, or has to be said. `resource` is empty for a whole node.

    id: what `sparkops explain` takes. where: the place in the inventory. origin and since: where kept runs tell it.
    accepted: the reason, where `accept` names it. step and result: what an apply does or did about it.
    """

    id: str
    standing: Standing
    severity: Severity
    node: str
    resource: str
    text: str
    fix: str = ""
    service: str = ""
    where: str = ""
    source: str = ""
    accepted: str = ""
    origin: Origin | None = None
    since: Seen | None = None
    step: Step | None = field(default=None, repr=False)
    result: Result | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """What it is about: its resource, or itself on its node."""
        return self.resource or f"{self.id} @{self.node}"

    @property
    def sign(self) -> str:
        """What is equal for the same finding in several runs."""
        return _sign(self.id, self.resource, self.node)


def _sign(id: str, resource: str, node: str) -> str:
    return f"{id} {resource}" if resource else f"{id} @{node}"


def findings(report: Report) -> tuple[Finding, ...]:
    """All findings, the worst first; in the order of the nodes and the plan among equals."""
    found = [*_nodes(report), *_violations(report), *_unknown(report), *_steps(report), *_orphans(report)]
    return tuple(sorted(found, key=lambda each: SEVERITIES.index(each.severity)))


def standings(report: Report, found: Iterable[Finding]) -> Mapping[str, Standing]:
    """The state of every declared resource by its id, by the report's findings. What blocks nothing is as declared."""
    states: dict[str, Standing] = {
        each.id: "unknown" if each.node in report.plan.unreachable else "as-declared" for each in report.plan.declared
    }
    for each in found:
        if each.resource in states:
            states[each.resource] = worst((states[each.resource], each.standing))
    return states


def looked_at(report: Report, states: Mapping[str, Standing], node: str, resource: str) -> bool:
    """Whether the run saw what a finding is about ("": the whole node). What it could not observe may stand still."""
    if resource in states:
        return states[resource] != "unknown"
    plan = report.plan
    return node in plan.nodes and node not in plan.unreachable and f"claims @{node}" not in plan.unknown


def counts(states: Mapping[str, Standing]) -> dict[Standing, int]:
    """How many declared resources are in each state."""
    counted = Counter(states.values())
    return {each: counted[each] for each in STANDINGS}


def worst(states: Iterable[Standing]) -> Standing:
    """The state of several together: what is known to be wrong says more than what is not known."""
    return max(states, key=STANDINGS.index, default="as-declared")


def _places(report: Report) -> Mapping[str, str]:
    return {each.id: each.where for each in report.plan.declared}


def _nodes(report: Report) -> Iterator[Finding]:
    """The nodes that did not answer."""
    for node, why in report.plan.unreachable.items():
        where = next((each.where for each in report.plan.declared if each.node == node and not each.service), "")
        yield Finding(
            id=why.id,
            standing="unknown",
            severity="warning",
            node=node,
            resource="",
            text=f"{node} is unreachable: {why.text}",
            fix=why.fix,
            where=where,
            since=report.past.since.get(_sign(why.id, "", node)),
        )


def _violations(report: Report) -> Iterator[Finding]:
    places = _places(report)
    for each in report.plan.violations:
        yield Finding(
            id=each.id,
            standing="violation" if each.blocks else "as-declared",
            severity="info" if each.accepted else each.severity,
            node=each.node,
            resource=each.resource,
            text=each.message.text,
            fix="" if each.accepted else each.message.fix,
            where=places.get(each.resource, ""),
            source=each.source,
            accepted=each.accepted,
            since=report.past.since.get(_sign(each.id, each.resource, each.node)),
        )


def _unknown(report: Report) -> Iterator[Finding]:
    places = _places(report)
    for resource, why in report.plan.unknown.items():
        yield Finding(
            id=why.id,
            standing="unknown",
            severity="warning",
            node=resource.rpartition(" @")[2],
            resource=resource,
            text=f"{resource} is unknown: {why.text}",
            fix=why.fix,
            where=places.get(resource, ""),
            since=report.past.since.get(_sign(why.id, resource, "")),
        )


def _steps(report: Report) -> Iterator[Finding]:
    """What differs; after an apply what still does. What was repaired is no finding, unless it was taken back."""
    places = _places(report)
    results = {each.id: each for each in report.results}
    returns = {(each.service, node): each.state for each in report.rollouts for node in each.nodes}
    for step in report.plan.steps:
        result = results.get(step.id)
        if result is not None and result.outcome == "done":
            state = returns.get((step.service or "", step.node))
            if state is not None and state in RETURNS and step.kind in BROUGHT_BACK and step.action != "verify":
                yield _taken_back(report, step, result, state, places)
            continue
        about, origin = _about(step), report.past.origins.get(step.id)
        why = result.reason if result is not None else report.plan.blocked.get(step.id)
        begun = result is not None and result.outcome in ("failed", "unknown")
        said = why if begun and why is not None else about
        not_begun = f"; not attempted: {why.text}" if why is not None and not begun else ""
        yield Finding(
            id=said.id,
            standing=_standing(step, result),
            severity=_severity(step, result, origin),
            node=step.node,
            resource=step.id,
            text=f"{step.id}: {said.text}" if begun else f"{said.text}{not_begun}",
            fix=(why.fix if why is not None else "") or about.fix,
            service=step.service or "",
            where=places.get(step.id, ""),
            origin=origin,
            since=report.past.since.get(_sign(said.id, step.id, "")),
            step=step,
            result=result,
        )


def _taken_back(report: Report, step: Step, result: Result, state: RolloutState, places: Mapping[str, str]) -> Finding:
    """What a step changed, and the return of its engine after it."""
    id, standing = RETURNS[state]
    said = Message.of(id, resource=step.id)
    return Finding(
        id=id,
        standing=standing,
        severity="warning",
        node=step.node,
        resource=step.id,
        text=said.text,
        fix=said.fix,
        service=step.service or "",
        where=places.get(step.id, ""),
        since=report.past.since.get(_sign(id, step.id, "")),
        step=step,
        result=result,
    )


def _about(step: Step) -> Message:
    if step.action == "create":
        return Message.of("drift-missing", resource=step.id)
    if step.action == "delete":
        return Message.of("drift-left", resource=step.id)
    if step.action == "replace":
        return Message.of("drift-replace", resource=step.id)
    if step.action == "verify":
        return Message.of("drift-verify", resource=step.id)
    why = why_differs(step)
    return Message.of("drift-differs", resource=step.id, keys=list(step.changes), why=f": {why}" if why else "")


def _standing(step: Step, result: Result | None) -> Standing:
    if result is not None and result.outcome == "unknown":
        return "unknown"
    return "as-declared" if step.action == "verify" and result is None else "drifted"


def _severity(step: Step, result: Result | None, origin: Origin | None) -> Severity:
    """An error where undoing what happened to the node interrupts a service, or where a step failed."""
    if result is not None and result.outcome == "failed":
        return "error"
    if step.action == "verify" or origin == "intentional":
        return "info"
    return "error" if step.disruptive and step.action != "replace" else "warning"


def _orphans(report: Report) -> Iterator[Finding]:
    for each in report.plan.orphans:
        yield _orphan(each, report)


def _orphan(orphan: Orphan, report: Report) -> Finding:
    said = Message.of("drift-orphan", resource=orphan.id)
    if orphan.kept:
        said = Message.of("drift-orphan-kept", resource=orphan.id, reason=orphan.kept)
    return Finding(
        id=said.id,
        standing="as-declared" if orphan.kept else "drifted",
        severity="info" if orphan.kept else "warning",
        node=orphan.node,
        resource=orphan.id,
        text=said.text,
        fix=said.fix,
        service=orphan.service or "",
        origin="intentional",
        since=report.past.since.get(_sign(said.id, orphan.id, "")),
    )
