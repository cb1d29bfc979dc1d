"""The saved plan: what `plan -o` writes and `apply --plan` holds the world against, before anything is touched.

No content and no secret is in it, nor anything computed from a secret: digests of what the plan was made from, and of
each step what was compared. It names nothing that is opened or run. Pure: it must not know files or nodes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparkops import resources
from sparkops.core.digests import sha256
from sparkops.core.errors import InventoryError, Stale
from sparkops.core.messages import Fields, State
from sparkops.core.nested import plain
from sparkops.core.plan import Plan, Step
from sparkops.core.wording import Message

FORMAT = "sparkops.plan/1"
SHOWN = 90


def _object(properties: Fields, description: str = "") -> Fields:
    """The schema of a mapping that has all of these keys and no other."""
    more = {"description": description} if description else {}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
        **more,
    }


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_STATE = {"type": ["object", "null"]}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_SHARD = {"type": "integer", "minimum": 1, "maximum": 9999}
_STEP = {
    "id": {**_TEXT, "description": "the resource: `KIND NAME @NODE`"},
    "node": _TEXT,
    "kind": _TEXT,
    "service": {"type": ["string", "null"]},
    "action": {"enum": ["create", "update", "delete", "replace", "verify"]},
    "changes": {**_TEXTS, "description": "the keys that differ"},
    "disruptive": {"type": "boolean", "description": "it interrupts a service"},
    "blocked": {"type": "boolean", "description": "it will not be attempted, because of what it stands on"},
    "before": {**_STATE, "description": "what was found; null is absence, and always so for a verify"},
    "after": {**_STATE, "description": "what is declared; null is absence"},
}
_SELECTION = {
    "limit": _TEXTS,
    "roles": _TEXTS,
    "shard": {"type": ["array", "null"], "items": _SHARD, "minItems": 2, "maxItems": 2},
}
_PLAN = {
    "schema": {"const": FORMAT},
    "sparkops": {**_TEXT, "description": "the version that made it"},
    "made": {**_TEXT, "description": "when, UTC, ISO 8601"},
    "cluster": _TEXT,
    "selection": _object(_SELECTION, "--limit, --role and --shard"),
    "inputs": {
        "type": "object",
        "additionalProperties": _DIGEST,
        "description": "what it was made from: inventory, -e, roles, templates, recipes, knowledge, archives",
    },
    "steps": {"type": "array", "items": _object(_STEP)},
    "digest": {**_DIGEST, "description": "SHA-256 of all other keys as canonical JSON"},
}
SCHEMA: Fields = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A saved plan of sparkops",
    **_object(_PLAN),
}


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan that can be kept. `told` has all keys of SCHEMA but the digest."""

    told: Fields

    @property
    def text(self) -> str:
        """The file's content. The same plan is the same text."""
        return json.dumps({**self.told, "digest": _digest(self.told)}, indent=1) + "\n"

    @property
    def selection(self) -> dict[str, Any]:
        """What it is limited to: `limit`, `roles` and `shard`."""
        return {key: None if each is None else tuple(each) for key, each in self.told["selection"].items()}

    def refuse_other_inputs(self, cluster: str, version: str, inputs: Mapping[str, str]) -> None:
        """Raises InventoryError for a plan of another cluster, Stale naming which inputs are no longer the same."""
        if cluster != self.told["cluster"]:
            raise InventoryError.of("plan-of-other-cluster", cluster=self.told["cluster"], declared=cluster)
        changed = list(_inputs(self.told["inputs"], inputs))
        if version != self.told["sparkops"]:
            changed.append(Message.of("plan-of-other-version", made=self.told["sparkops"], this=version))
        _refuse(changed)

    def refuse_other_steps(self, now: Plan) -> None:
        """Raises Stale naming each step that is no longer as it was planned."""
        _refuse(differences(self, now))


def read(content: bytes, where: str = "") -> SavedPlan:
    """The plan in a file. Raises InventoryError for what is none, of another format, or changed since it was saved."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InventoryError.of("plan-not-json", where=where, reason=str(error)) from None
    form = told.get("schema") if isinstance(told, dict) else None
    if form != FORMAT:
        schema = form if isinstance(form, str) else None
        raise InventoryError.of("plan-format-unknown", where=where, schema=schema, format=FORMAT)
    _validate(told, where)
    if _digest({key: value for key, value in told.items() if key != "digest"}) != told["digest"]:
        raise InventoryError.of("plan-changed-after-saving", where=where)
    if len({step["id"] for step in told["steps"]}) != len(told["steps"]):
        raise InventoryError.of("plan-step-twice", where=where)
    shard = told["selection"]["shard"]
    if shard is not None and shard[0] > shard[1]:
        raise InventoryError.of("plan-shard-missing", where=where, number=shard[0], of=shard[1])
    return SavedPlan({key: value for key, value in told.items() if key != "digest"})


def differences(plan: SavedPlan, now: Plan) -> tuple[Message, ...]:
    """What differs between a saved plan and the present one, one by one; empty when nothing does."""
    present = {step["id"]: step for step in steps_of(now)}
    steps = plan.told["steps"]
    planned = {step["id"] for step in steps}
    silent = sorted({step["node"] for step in steps if step["node"] in now.unreachable})
    found = [Message.of("plan-node-silent", node=node, reason=now.unreachable[node]) for node in silent]
    for step in steps:
        about = {"step": step["id"], "action": step["action"]}
        if step["id"] in present:
            found += _step(step, present[step["id"]], now)
        elif why := now.unknown.get(step["id"]):
            found.append(Message.of("plan-step-unknown", **about, reason=why))
        elif step["node"] not in now.unreachable:
            found.append(Message.of("plan-step-needless", **about))
    new = [step for id, step in present.items() if id not in planned]
    return (*found, *(Message.of("plan-step-new", step=each["id"], action=each["action"]) for each in new))


def _step(planned: Fields, present: Fields, now: Plan) -> Iterator[Message]:
    id = planned["id"]
    if planned["action"] != present["action"]:
        yield Message.of("plan-action-moved", step=id, planned=planned["action"], present=present["action"])
        return
    told = [
        *(Message.of("plan-found-moved", step=id, **each) for each in _moved(planned["before"], present["before"])),
        *(Message.of("plan-declared-moved", step=id, **each) for each in _moved(planned["after"], present["after"])),
    ]
    if planned["blocked"] != present["blocked"]:
        why = now.blocked.get(id)
        told.append(
            Message.of("plan-step-blocked", step=id, reason=why)
            if why
            else Message.of("plan-step-not-blocked", step=id)
        )
    if present["disruptive"] and not planned["disruptive"]:
        told.append(Message.of("plan-step-interrupts", step=id, service=present["service"]))
    if not told and (keys := [key for key, value in planned.items() if value != present[key]]):
        told.append(Message.of("plan-step-moved", step=id, keys=keys))
    yield from told


def _moved(planned: State, present: State) -> Iterator[dict[str, str | None]]:
    """Each key with other values, both as JSON or None; of what is absent in one of the plans none."""
    if planned is None or present is None:
        return
    for key in dict.fromkeys([*planned, *present]):
        was, now = (
            json.dumps(each[key], ensure_ascii=False, sort_keys=True) if key in each else None
            for each in (planned, present)
        )
        if was != now:
            yield {"key": key, "planned": was and _clip(was), "present": now and _clip(now)}


def _clip(words: str) -> str:
    return words if len(words) <= SHOWN else words[:SHOWN] + "…"


def _inputs(planned: Mapping[str, str], present: Mapping[str, str]) -> Iterator[Message]:
    for name in dict.fromkeys([*planned, *present]):
        values = name == "-e"
        if name not in present:
            yield Message.of("plan-made-with-values") if values else Message.of("plan-input-gone", name=name)
        elif name not in planned:
            yield Message.of("plan-made-without-values") if values else Message.of("plan-input-new", name=name)
        elif planned[name] != present[name] and not values:
            yield Message.of("plan-input-changed", name=name)
        elif planned[name] != present[name] and planned.get("inventory") == present.get("inventory"):
            yield Message.of("plan-values-changed")


def _refuse(changed: Sequence[Message]) -> None:
    if changed:
        raise Stale.of("plan-outdated", differences=changed)


def steps_of(plan: Plan) -> list[Fields]:
    """What is compared of each step, as SCHEMA has it."""
    return [
        {
            "id": step.id,
            "node": step.node,
            "kind": step.kind,
            "service": step.service,
            "action": step.action,
            "changes": [key for key in step.changes if key not in _ignored(step)],
            "disruptive": step.disruptive,
            "blocked": step.id in plan.blocked,
            "before": _kept(step.before, _ignored(step)) if step.action != "verify" else None,
            "after": _kept(step.after, frozenset({"text"})),
        }
        for step in plan.steps
    ]


def _kept(state: State, ignored: Collection[str]) -> State:
    """A state as it is compared: without what may differ between two looks, and without text."""
    if state is None:
        return None
    kept: Fields = json.loads(json.dumps(plain({key: each for key, each in state.items() if key not in ignored})))
    return kept


def _ignored(step: Step) -> frozenset[str]:
    """What a kind finds but does not compare. A key that is declared is compared all the same."""
    return resources.known(step.kind).volatile - frozenset(step.after or ()) | {"text"}


def _digest(told: Mapping[str, object]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode())


def _validate(told: Mapping[str, object], where: str) -> None:
    from jsonschema import Draft202012Validator  # late: it takes longer to load than a plan to read
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(SCHEMA).iter_errors(told))
    if error is not None:
        place = error.json_path.removeprefix("$.")
        raise InventoryError.of("plan-field-invalid", where=where, place=place, message=_clip(error.message))
