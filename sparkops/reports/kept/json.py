"""A report out of its JSON, as kept runs hold it. Text differences are content and are not kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparkops.core.plan import Between, Declared, Occupied, Orphan, Plan, Step, Violation
from sparkops.core.report import Past, Report, Result
from sparkops.core.states import Unknown
from sparkops.core.wording import Message


def from_json(told: Mapping[str, Any], **more: Any) -> Report:
    """The report; `more` are fields that are kept beside it. Raises KeyError, TypeError for other JSON."""
    return Report(
        command=told["command"],
        cluster=told["cluster"],
        inventory=told["inventory"],
        plan=_plan(told),
        results=tuple(map(_result, told["results"])),
        endpoints=told["endpoints"],
        interrupted=told["interrupted"],
        declined=told["declined"],
        whole=told["whole"],
        **{"past": Past(origins=told.get("origins", {})), **more},
    )


def _plan(told: Mapping[str, Any]) -> Plan:
    steps = told["steps"]
    return Plan(
        steps=tuple(map(_step, steps)),
        violations=tuple(map(_violation, told["violations"])),
        unknown={id: Unknown.from_json(why) for id, why in told["unknown"].items()},
        unreachable={node: Message.from_json(why) for node, why in told["unreachable"].items()},
        blocked={step["id"]: Message.from_json(step["blocked"]) for step in steps if step["blocked"]},
        notices=tuple(map(Message.from_json, told["notices"])),
        nodes=tuple(told["nodes"]),
        total=told["resources"],
        orphans=tuple(Orphan(**{**each, "occupied": Occupied(**each["occupied"])}) for each in told["orphans"]),
        declared=tuple(map(_declared, told["declared"])),
        between=tuple(Between(**each) for each in told["between_nodes"]),
    )


def _step(told: Mapping[str, Any]) -> Step:
    fields = {key: value for key, value in told.items() if key != "blocked"}
    return Step(**{**fields, "changes": tuple(told["changes"]), "needs": tuple(told["needs"])})


def _violation(told: Mapping[str, Any]) -> Violation:
    message = Message.from_json(told["reason"])
    fields = {key: told[key] for key in ("resource", "node", "severity", "source", "accepted")}
    return Violation(message=message, key=told["id"] if told["id"] != message.id else "", **fields)


def _result(told: Mapping[str, Any]) -> Result:
    return Result(**{**told, "reason": Message.from_json(told["reason"]) if told["reason"] else None})


def _declared(told: Mapping[str, Any]) -> Declared:
    kind, _, name = told["id"].partition(" ")
    return Declared(kind=kind, name=name.removesuffix(f" @{told['node']}"), **told)
