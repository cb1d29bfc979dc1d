"""Fill the facts that declared texts wait for: what a rank's environment says of its own host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sparkops.core import fact_text
from sparkops.core.errors import SparkopsError
from sparkops.core.fact_text import FactOf
from sparkops.core.messages import ObserveRequest
from sparkops.core.secrets import Content
from sparkops.core.states import Unknown
from sparkops.nodes.session import Session
from sparkops.reconcile.fleet import Fleet
from sparkops.resources.resource import Resource, unpack

FACTS = "facts"
LIMIT = 30.0
"""Seconds that an observer on the node may take before its answer is unknown."""
MARGIN = 15.0


def waiting(resource: Resource) -> Iterator[FactOf]:
    """The facts that the texts of a resource wait for."""
    for text in _texts(resource).values():
        yield from fact_text.facts_in(text)


def informed(fleet: Fleet, resources: Sequence[Resource]) -> tuple[tuple[Resource, ...], dict[str, Unknown]]:
    """The resources with their facts filled in, and the reasons of those whose facts are not known."""
    groups: dict[str, set[str]] = {}
    late = {each.id for each in resources if _note(each, groups)}
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


def _note(resource: Resource, groups: dict[str, set[str]]) -> bool:
    found = list(waiting(resource))
    for each in found:
        groups.setdefault(each.node, set()).add(each.path[0])
    return bool(found)


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


def _asked(fleet: Fleet, groups: Mapping[str, set[str]]) -> dict[str, Mapping[str, object] | Unknown]:
    def ask(node: str, session: Session) -> Mapping[str, object] | Unknown:
        request: ObserveRequest = {"asks": [(FACTS, FACTS, {"groups": sorted(groups[node])})], "limit": LIMIT}
        answer = session.call("observe", request, timeout=LIMIT + MARGIN)
        answers = answer.get("answers") if isinstance(answer, Mapping) else None
        found = unpack(answers.get(FACTS) if isinstance(answers, Mapping) else None)
        return found if found is not None else {}

    known = [node for node in groups if node in fleet.targets]
    facts: dict[str, Mapping[str, object] | Unknown] = {
        node: Unknown.of("node-not-in-run") for node in groups if node not in fleet.targets
    }
    for node, found in fleet.each(known, ask).items():
        if isinstance(found, SparkopsError):
            fleet.fail(node, found)
            found = Unknown(found.message.id, found.message.args)
        facts[node] = found
    return facts
