"""Ask every node once, for everything: the observations of all its resources, and the facts that are referred to.

Before that, and only where there are any, the facts that declared texts wait for: what a rank's environment says of
its own host.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

from sparkops.core import events, fact_text
from sparkops.core.errors import SparkopsError
from sparkops.core.fact_text import FactOf
from sparkops.core.messages import UNKNOWN, Fields, ObserveRequest
from sparkops.core.nested import leaves
from sparkops.core.secrets import Content
from sparkops.core.states import Facts, FromFact, Observed, Unknown
from sparkops.nodes.session import Session
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.plan import Observations
from sparkops.resources.resource import Resource, unpack

CLAIMS = "claimed"
FACTS = "facts"
LIMIT = 30.0
"""Seconds that an observer on the node may take before its answer is unknown."""
MARGIN = 15.0
Ask: TypeAlias = tuple[str, str, Mapping[str, object]]
"""An id, and of which kind it is asked, and what."""


def prepare(resources: Sequence[Resource]) -> tuple[tuple[Resource, ...], dict[str, Unknown]]:
    """The resources with what they need from outside, and those for which that could not be had.

    The slow ones (hub look-ups) run side by side; what needs nothing costs nothing.
    """
    lazy = [each for each in resources if type(each).prepare is not Resource.prepare]
    if not lazy:
        return tuple(resources), {}
    failed: dict[str, Unknown] = {}

    def one(resource: Resource) -> Resource:
        try:
            return resource.prepare()
        except SparkopsError as error:
            failed[resource.id] = Unknown(error.message.id, error.message.args)
            return resource

    with ThreadPoolExecutor(min(8, len(lazy))) as pool:
        done = {resource.id: resource for resource in pool.map(one, lazy)}
    return tuple(done.get(each.id, each) for each in resources), failed


def observe(
    fleet: Fleet,
    resources: Sequence[Resource],
    *,
    unprepared: Mapping[str, Unknown] | None = None,
    listener: events.Listener = events.silent,
    nodes: Iterable[str] = (),
    claims: Mapping[str, bool] | None = None,
    staying: Sequence[Resource] = (),
) -> Observations:
    """What every node answers; silent nodes stand in `unreachable`.

    `nodes` are asked even where no resource is declared. With `claims` the records of claims are looked at too: that
    mapping and what is declared goes to the worker's `claimed`; so does what is `staying`, which is not looked at.
    """
    unprepared = unprepared or {}
    by_node: dict[str, list[Resource]] = {node: [] for node in nodes}
    declared: dict[str, list[str]] = {node: [] for node in by_node}
    for resource in (*resources, *staying):
        if resource.claimed:
            declared.setdefault(resource.node, []).append(f"{resource.kind} {resource.name}")
    for resource in resources:
        here = by_node.setdefault(resource.node, [])
        if resource.id not in unprepared:
            here.append(resource)
    found: dict[str, Observed] = dict(unprepared)
    facts: dict[str, Facts] = {}
    records: dict[str, Observed] = {}
    machines: dict[str, str] = {}

    def ask(node: str, session: Session) -> Fields:
        started = time.monotonic()
        asks: list[Ask] = [(each.id, each.kind, each.ask()) for each in by_node[node]]
        if groups := {path.partition(".")[0] for each in by_node[node] for path in fact_paths(each.desired())}:
            asks.append(facts_ask(groups))
        if claims is not None:
            asks.append((CLAIMS, CLAIMS, {**(session.claims or {}), "declared": declared.get(node, []), **claims}))
        answers, machines[node] = asked(session, asks)
        unknown = sum(isinstance(unpack(answer), Unknown) for answer in answers.values())
        listener(
            events.NodeObserved(
                node=node, seconds=time.monotonic() - started, resources=len(by_node[node]), unknown=unknown
            )
        )
        return answers

    told, silent = fleet.each(by_node, ask)
    for node, error in silent.items():
        fleet.fail(node, error)
    for node, answers in told.items():
        if FACTS in answers:
            facts[node] = unpack(answers[FACTS]) or {}
        if claims is not None:
            records[node] = claims_of(answers.get(CLAIMS, {UNKNOWN: {"id": "claims-not-answered", "args": {}}}))
        found.update({each.id: each.observed(answers[each.id]) for each in by_node[node] if each.id in answers})
    unreachable = {node: error.message for node, error in silent.items()}
    return Observations(found=found, facts=facts, unreachable=unreachable, claims=records, machines=machines)


def claims_of(answer: object) -> Observed:
    """What the worker's `claimed` answered; unknown where it has not its shape."""
    found = unpack(answer)
    if isinstance(found, Mapping):
        parts = [found.get(name) for name in ("strays", "foreign", "claims")]
        whole = all(isinstance(part, Mapping) and all(isinstance(e, Mapping) for e in part.values()) for part in parts)
        whole = whole and isinstance(found.get("renamed"), bool)
        if not whole or not all(map(_is_stray, found["strays"].values())):
            return Unknown.of("answer-not-understood", answer=f"{answer!r:.200}")
    return found


def _is_stray(entry: Mapping[str, object]) -> bool:
    """Whether what a node answers of a claim has the types that are read."""
    lists = [entry.get("others", ()), entry.get("entries") or ()]
    return (
        isinstance(entry.get("now"), str)
        and isinstance(entry.get("service"), (str, type(None)))
        and all(isinstance(each, (list, tuple)) and all(isinstance(e, str) for e in each) for each in lists)
    )


def asked(session: Session, asks: Sequence[Ask]) -> tuple[Fields, str]:
    """What a node answers in one request, by id; and which machine it is that answers, "" where that is not known."""
    request: ObserveRequest = {"asks": asks, "limit": LIMIT}
    answer = session.call("observe", request, timeout=LIMIT + MARGIN)
    answer = answer if isinstance(answer, Mapping) else {}
    answers = answer.get("answers")
    return answers if isinstance(answers, Mapping) else {}, str(answer.get("machine") or "")


def facts_ask(groups: Iterable[str]) -> Ask:
    """What asks for the facts of these groups."""
    return (FACTS, FACTS, {"groups": sorted(groups)})


def fact_paths(value: object) -> Iterable[str]:
    """The paths of all `FromFact` in a desired state, at any depth."""
    return (each.path for each in leaves(value) if isinstance(each, FromFact))


def waiting(resource: Resource) -> Iterator[FactOf]:
    """The facts that the texts of a resource wait for."""
    for text in _texts(resource).values():
        yield from fact_text.facts_in(text)


def informed(fleet: Fleet, resources: Sequence[Resource]) -> tuple[tuple[Resource, ...], dict[str, Unknown]]:
    """The resources with their facts filled in, and the reasons of those whose facts are not known."""
    groups: dict[str, set[str]] = {}
    late: set[str] = set()
    for each in resources:
        for fact in waiting(each):
            groups.setdefault(fact.node, set()).add(fact.path[0])
            late.add(each.id)
    if not late:
        return tuple(resources), {}
    facts = _asked(fleet, groups)
    unknown: dict[str, Unknown] = {}

    def one(resource: Resource) -> Resource:
        changed: dict[str, Any] = {}
        for name, text in _texts(resource).items():
            full = fact_text.filled(text, facts)
            if isinstance(full, Unknown):
                unknown[resource.id] = full
                return resource
            changed[name] = Content(full) if isinstance(getattr(resource, name), Content) else full
        return dataclasses.replace(resource, **changed)

    return tuple(one(each) if each.id in late else each for each in resources), unknown


def _texts(resource: Resource) -> dict[str, str]:
    """The texts of a resource that hold marks, by field; none of what is to go, which must not wait for any fact."""
    found: dict[str, str] = {}
    if getattr(resource, "state", "present") == "absent":
        return found
    for field in dataclasses.fields(resource):
        value = getattr(resource, field.name)
        text = value.text if isinstance(value, Content) else value
        if isinstance(text, str) and fact_text.holds(text):
            found[field.name] = text
    return found


def _asked(fleet: Fleet, groups: Mapping[str, set[str]]) -> dict[str, Facts]:
    def ask(node: str, session: Session) -> Facts:
        answers, _ = asked(session, [facts_ask(groups[node])])
        return unpack(answers.get(FACTS)) or {}

    facts: dict[str, Facts] = {node: Unknown.of("node-not-in-run") for node in groups if node not in fleet.targets}
    told, silent = fleet.each([node for node in groups if node in fleet.targets], ask)
    for node, error in silent.items():
        fleet.fail(node, error)
        facts[node] = Unknown(error.message.id, error.message.args)
    return {**facts, **told}
