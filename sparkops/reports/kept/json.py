"""A report out of its JSON, as kept runs and files hold it. Text differences are content and are not kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.plan import Between, Declared, Occupied, Orphan, Plan, Step, Violation
from sparkops.core.report import KeptRun, Past, Report, Result, Rollout, Seen, Shards
from sparkops.core.states import Unknown
from sparkops.core.wording import Message
from sparkops.reports import schemas
from sparkops.reports.run.findings import Finding


def from_json(told: Fields, **more: Any) -> Report:
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
        rollouts=tuple(map(_rollout, told["rollouts"])),
        shards=Shards(tuple(told["shards"]["numbers"]), told["shards"]["of"]) if told.get("shards") else None,
        **{"past": Past(origins=told.get("origins", {})), **more},
    )


UNLIKE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What JSON of another shape raises."""


def of_run(run: KeptRun, body: Fields) -> Report:
    """The report of a kept run. Raises SparkopsError for one of another version of sparkops."""
    try:
        if body["schema"] != schemas.REPORT:
            raise ValueError(f"its schema is {body['schema']!r}")
        return from_json(body, run=run.run, time=run.time, seconds=run.seconds)
    except UNLIKE as error:
        told = f"{type(error).__name__}: {error}"
        raise SparkopsError.of("run-of-other-version", run=run.run, schema=schemas.REPORT, reason=told) from None


def of_file(path: Path) -> Report:
    """The report in a file that `--report json=…` or `-o` wrote, with what earlier runs added to it.

    Raises SparkopsError for anything else, OSError where it can't be read.
    """
    try:
        told = json.loads(path.read_bytes())
        if told["schema"] != schemas.REPORT:
            raise ValueError(f"its schema is {told['schema']!r}")
        found = told["findings"]
        past = Past(
            since={_sign(each): Seen(**each["since"]) for each in found if each["since"]},
            origins={each["resource"]: each["origin"] for each in found if each["origin"]},
        )
        return from_json(told, run=told["run"], time=told["time"], seconds=told["seconds"], past=past)
    except UNLIKE as error:
        raise SparkopsError.of("report-file-invalid", where=str(path), schema=schemas.REPORT, reason=error) from None


def _sign(told: Fields) -> str:
    fields = {key: told[key] for key in ("id", "severity", "node", "resource")}
    return Finding(**fields, standing=told["state"], text=told["message"]).sign


def _plan(told: Fields) -> Plan:
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
        orphans=tuple(map(_orphan, told["orphans"])),
        declared=tuple(map(_declared, told["declared"])),
        between=tuple(Between(**each) for each in told["between_nodes"]),
    )


def _step(told: Fields) -> Step:
    fields = {key: value for key, value in told.items() if key != "blocked"}
    return Step(**{**fields, "changes": tuple(told["changes"]), "needs": tuple(told["needs"])})


def _orphan(told: Fields) -> Orphan:
    plain = {key: value for key, value in told.items() if key not in ("remedy", "reason")}
    kept = Message.from_json(told["reason"]) if told["reason"] else None
    return Orphan(**{**plain, "kept": kept, "occupied": Occupied(**told["occupied"])})


def _violation(told: Fields) -> Violation:
    message = Message.from_json(told["reason"])
    fields = {key: told[key] for key in ("resource", "node", "severity", "source", "accepted")}
    return Violation(message=message, key=told["id"] if told["id"] != message.id else "", **fields)


def _result(told: Fields) -> Result:
    notices = tuple(map(Message.from_json, told.get("notices", ())))
    return Result(
        **{**told, "reason": Message.from_json(told["reason"]) if told["reason"] else None, "notices": notices}
    )


def _rollout(told: Fields) -> Rollout:
    reason = Message.from_json(told["reason"]) if told["reason"] else None
    return Rollout(service=told["service"], nodes=tuple(told["nodes"]), state=told["state"], reason=reason)


def _declared(told: Fields) -> Declared:
    kind, _, name = told["id"].partition(" ")
    return Declared(kind=kind, name=name.removesuffix(f" @{told['node']}"), **told)
