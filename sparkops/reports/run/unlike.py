"""Where the nodes of a service are not alike: in their facts, in a resource's state, or in what was found. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.report import Report
from sparkops.reports.formatting import brief, safe, value
from sparkops.reports.run.findings import Standing

LONG = 200
ROWS = 100


@dataclass(frozen=True, slots=True)
class Unlike:
    """One service: its nodes, and for each thing that is not alike what each node has."""

    name: str
    nodes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def unlike(report: Report, services: Mapping[str, Sequence[str]], states: Mapping[str, Standing]) -> tuple[Unlike, ...]:
    """The services on several nodes with what differs between them; at most ROWS things of each."""
    found = []
    steps = {step.id: step for step in report.plan.steps}
    for service, nodes in services.items():
        things: dict[tuple[str, str], dict[str, str]] = {}
        for each in report.plan.declared:
            if each.service == service and len(nodes) > 1:
                step = steps.get(each.id)
                told = states[each.id].replace("-", " ")
                if step is not None and states[each.id] == "drifted":
                    told = f"{told}: {_found(step.before, step.changes)}"
                things.setdefault((each.kind, each.name), {})[each.node] = told
        rows = [
            (_cut(each.fact), tuple(_fact(each.values, node) for node in nodes))
            for each in report.plan.between
            if each.service == service
        ]
        rows += [
            (_cut(f"{kind} {name}"), tuple(by_node.get(node, "not declared") for node in nodes))
            for (kind, name), by_node in things.items()
            if len(set(by_node.values())) > 1
        ]
        if rows:
            found.append(Unlike(_cut(service), tuple(_cut(each) for each in nodes), tuple(rows[:ROWS])))
    return tuple(found)


def _fact(values: Mapping[str, object], node: str) -> str:
    found = values.get(node)
    return "none" if found is None else _cut(str(found))


def _found(state: Mapping[str, object] | None, keys: Sequence[str]) -> str:
    if state is None:
        return "not there"
    return _cut(", ".join(f"{key} {brief(value(key, state[key]))}" for key in keys if state.get(key) is not None))


def _cut(text: str) -> str:
    words = safe(text)
    return words if len(words) <= LONG else f"{words[: LONG - 1]}…"
