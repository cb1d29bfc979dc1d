"""Fill the facts that declared texts wait for: what a rank's environment says of its own host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sparkops.core import fact_text
from sparkops.core.fact_text import FactOf
from sparkops.core.secrets import Content
from sparkops.core.states import Facts, Unknown
from sparkops.nodes.session import Session
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import FACTS, asked, fact_paths, facts_ask
from sparkops.resources.resource import Resource, unpack


def waiting(resource: Resource) -> Iterator[FactOf]:
    """The facts that the texts of a resource wait for."""
    for text in _texts(resource).values():
        yield from fact_text.facts_in(text)


def needs_facts(resources: Iterable[Resource]) -> bool:
    """Whether any of them takes something from a fact, so that the worker has to know facts."""
    return any(True for each in resources for _ in (*fact_paths(each.desired()), *waiting(each)))


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
