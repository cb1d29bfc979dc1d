"""The saved plan: what `plan -o` writes and `apply --plan` holds the world against, before anything is touched.

No content and no secret is in it, nor anything computed from a secret: digests of what the plan was made from, and of
each step what was compared. It names nothing that is opened or run. Pure: it must not know files or nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from sparkops import resources
from sparkops.core.errors import PlanError, Stale
from sparkops.core.plan import Plan, Step, plain
from sparkops.core.states import State

FORMAT = "sparkops.plan/1"
LISTED = 12
"""Differences that a refusal names; of more, the number."""
SHOWN = 90

_TEXTS = {"type": "array", "items": {"type": "string"}}
_STATE = {"type": ["object", "null"]}
_DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_STEP: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "node", "kind", "service", "action", "changes", "disruptive", "blocked", "before", "after"],
    "properties": {
        "id": {"type": "string", "description": "the resource: `KIND NAME @NODE`"},
        "node": {"type": "string"},
        "kind": {"type": "string"},
        "service": {"type": ["string", "null"]},
        "action": {"enum": ["create", "update", "delete", "replace", "verify"]},
        "changes": {**_TEXTS, "description": "the keys that differ"},
        "disruptive": {"type": "boolean", "description": "it interrupts a service"},
        "blocked": {"type": "boolean", "description": "it will not be attempted, because of what it stands on"},
        "before": {**_STATE, "description": "what was found; null is absence, and always so for a verify"},
        "after": {**_STATE, "description": "what is declared; null is absence"},
    },
}
SCHEMA: Mapping[str, object] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A saved plan of sparkops",
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "sparkops", "made", "cluster", "selection", "inputs", "steps", "digest"],
    "properties": {
        "schema": {"const": FORMAT},
        "sparkops": {"type": "string", "description": "the version that made it"},
        "made": {"type": "string", "description": "when, UTC, ISO 8601"},
        "cluster": {"type": "string"},
        "selection": {
            "type": "object",
            "additionalProperties": False,
            "required": ["limit", "roles", "shard"],
            "properties": {
                "limit": _TEXTS,
                "roles": _TEXTS,
                "shard": {
                    "type": ["array", "null"],
                    "items": {"type": "integer", "minimum": 1, "maximum": 9999},
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
            "description": "--limit, --role and --shard",
        },
        "inputs": {
            "type": "object",
            "additionalProperties": _DIGEST,
            "description": "what it was made from: inventory, -e, roles, templates, recipes, knowledge, archives",
        },
        "steps": {"type": "array", "items": _STEP},
        "digest": {**_DIGEST, "description": "SHA-256 of all other keys as canonical JSON"},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedStep:
    """What was compared of one step, in plain JSON values."""

    id: str
    node: str
    kind: str
    service: str | None
    action: str
    changes: list[str]
    disruptive: bool
    blocked: bool
    before: dict[str, object] | None
    after: dict[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPlan:
    """A plan as a value that can be kept. `made` is ISO 8601 in UTC, `inputs` maps names to digests."""

    version: str
    made: str
    cluster: str
    limit: tuple[str, ...]
    roles: tuple[str, ...]
    shard: tuple[int, int] | None
    inputs: Mapping[str, str]
    steps: tuple[SavedStep, ...]

    def text(self) -> str:
        """The file's content. The same plan is the same text."""
        told = {
            "schema": FORMAT,
            "sparkops": self.version,
            "made": self.made,
            "cluster": self.cluster,
            "selection": {
                "limit": list(self.limit),
                "roles": list(self.roles),
                "shard": list(self.shard) if self.shard else None,
            },
            "inputs": dict(self.inputs),
            "steps": [asdict(step) for step in self.steps],
        }
        return json.dumps({**told, "digest": _digest(told)}, indent=1) + "\n"

    def refuse_other_inputs(self, cluster: str, version: str, inputs: Mapping[str, str]) -> None:
        """Raises PlanError for a plan of another cluster, Stale naming which inputs are no longer the same."""
        if cluster != self.cluster:
            raise PlanError.of("plan-of-other-cluster", cluster=self.cluster, declared=cluster)
        changed = list(_inputs(self.inputs, inputs))
        if version != self.version:
            changed.append(f"it was made by sparkops {self.version}, this is {version}")
        _refuse(changed)

    def refuse_other_steps(self, now: Plan) -> None:
        """Raises Stale naming each step that is no longer as it was planned."""
        _refuse(differences(self, now))


def saved(
    plan: Plan,
    *,
    cluster: str,
    version: str,
    made: str,
    inputs: Mapping[str, str],
    limit: Sequence[str] = (),
    roles: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
) -> SavedPlan:
    """What is kept of a plan."""
    return SavedPlan(
        version=version,
        made=made,
        cluster=cluster,
        limit=tuple(limit),
        roles=tuple(roles),
        shard=shard,
        inputs=dict(sorted(inputs.items())),
        steps=_steps(plan),
    )


def read(content: bytes, where: str = "") -> SavedPlan:
    """The plan in a file. Raises PlanError for what is none, of another format, or changed since it was written."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PlanError.of("plan-not-json", where=where, reason=str(error)) from None
    form = told.get("schema") if isinstance(told, dict) else None
    if form != FORMAT:
        what = f"its schema is {form!r}" if isinstance(form, str) else "it has no schema"
        raise PlanError.of("plan-format-unknown", where=where, what=what, format=FORMAT)
    _validate(told, where)
    if _digest({key: value for key, value in told.items() if key != "digest"}) != told["digest"]:
        raise PlanError.of("plan-changed-after-saving", where=where)
    steps = tuple(SavedStep(**step) for step in told["steps"])
    if len({step.id for step in steps}) != len(steps):
        raise PlanError.of("plan-step-twice", where=where)
    return SavedPlan(
        version=told["sparkops"],
        made=told["made"],
        cluster=told["cluster"],
        limit=tuple(told["selection"]["limit"]),
        roles=tuple(told["selection"]["roles"]),
        shard=_shard(told["selection"]["shard"], where),
        inputs=told["inputs"],
        steps=steps,
    )


def _shard(told: Sequence[int] | None, where: str) -> tuple[int, int] | None:
    if told is not None and told[0] > told[1]:
        raise PlanError.of("plan-field-invalid", where=where, place="selection.shard", message=f"there is no {told}")
    return (told[0], told[1]) if told is not None else None


_MAKE = "make one with `sparkops plan -o FILE`"


def differences(plan: SavedPlan, now: Plan) -> tuple[str, ...]:
    """What differs between a saved plan and the present one, a line for each thing; empty when nothing does."""
    present = {step.id: step for step in _steps(now)}
    planned = {step.id for step in plan.steps}
    silent = sorted({step.node for step in plan.steps if step.node in now.unreachable})
    found = [f"{node} does not answer: {now.unreachable[node].full}" for node in silent]
    for step in plan.steps:
        if step.id in present:
            found += _step(step, present[step.id], now)
        elif step.node not in now.unreachable:
            found.append(f"{step.id}: planned to {step.action}, {_vanished(step, now)}")
    found += [f"{each.id}: now to {each.action}, not planned" for each in present.values() if each.id not in planned]
    return tuple(found)


def _vanished(step: SavedStep, now: Plan) -> str:
    why = now.unknown.get(step.id)
    return f"now unknown: {why.text}" if why is not None else "now nothing to do"


def _step(planned: SavedStep, present: SavedStep, now: Plan) -> list[str]:
    if planned.action != present.action:
        return [f"{planned.id}: planned to {planned.action}, now to {present.action}"]
    told = [
        *_state(planned.id, "was", planned.before, present.before),
        *_state(planned.id, "was to be", planned.after, present.after),
    ]
    if planned.blocked != present.blocked:
        why = now.blocked.get(present.id)
        told.append(
            f"{planned.id}: " + (f"now not attempted: {why.text}" if why else "it was not to be attempted, now it is")
        )
    if present.disruptive and not planned.disruptive:
        told.append(f"{planned.id}: it would now interrupt {present.service or 'a service'}")
    if not told and planned != present:
        keys = [key for key, value in asdict(planned).items() if value != getattr(present, key)]
        told.append(f"{planned.id}: not the same {', '.join(keys)}")
    return told


def _state(
    identity: str, verb: str, planned: Mapping[str, object] | None, present: Mapping[str, object] | None
) -> list[str]:
    if planned is None or present is None:
        return [] if planned is present else [f"{identity}: {'came' if planned is None else 'went'} since"]
    keys = [key for key in dict.fromkeys([*planned, *present]) if _words(planned, key) != _words(present, key)]
    return [
        f"{identity}: {key} {verb} {_clip(_words(planned, key))}, is now {_clip(_words(present, key))}" for key in keys
    ]


def _words(state: Mapping[str, object], key: str) -> str:
    return json.dumps(state[key], ensure_ascii=False, sort_keys=True) if key in state else "nothing"


def _clip(words: str) -> str:
    return words if len(words) <= SHOWN else words[:SHOWN] + "…"


def _inputs(planned: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*planned, *present]):
        if name not in present:
            yield f"{name} is no longer there" if name != "-e" else "the plan was made with -e; give the same again"
        elif name not in planned:
            yield f"{name} is new" if name != "-e" else "the plan was made without -e"
        elif planned[name] != present[name] and not (name == "-e" and _differs("inventory", planned, present)):
            yield f"{name} has changed" if name != "-e" else "the values given by -e are others"


def _differs(name: str, planned: Mapping[str, str], present: Mapping[str, str]) -> bool:
    return planned.get(name) != present.get(name)


def _refuse(changed: Sequence[str]) -> None:
    if not changed:
        return
    lines = [f"\n  {each}" for each in changed[:LISTED]]
    more = f"\n  and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
    raise Stale.of("plan-outdated", lines="".join(lines), more=more)


def _steps(plan: Plan) -> tuple[SavedStep, ...]:
    return tuple(
        SavedStep(
            id=step.id,
            node=step.node,
            kind=step.kind,
            service=step.service,
            action=step.action,
            changes=[key for key in step.changes if key not in _ignored(step)],
            disruptive=step.disruptive,
            blocked=step.id in plan.blocked,
            before=_kept(step, step.before) if step.action != "verify" else None,
            after=_kept(step, step.after),
        )
        for step in plan.steps
    )


def _kept(step: Step, state: State) -> dict[str, object] | None:
    """A state as it is compared: without what may differ between two looks, and without text."""
    if state is None:
        return None
    ignored = _ignored(step) if state is step.before else {"text"}
    kept = json.loads(json.dumps(plain({key: value for key, value in state.items() if key not in ignored})))
    assert isinstance(kept, dict)
    return kept


def _ignored(step: Step) -> frozenset[str]:
    """What a kind finds but does not compare. A key that is declared is compared all the same."""
    try:
        volatile = resources.kind(step.kind).volatile
    except KeyError:
        volatile = frozenset()
    return volatile - frozenset(step.after or ()) | {"text"}


def _digest(told: Mapping[str, object]) -> str:
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _validate(told: Mapping[str, object], where: str) -> None:
    from jsonschema import Draft202012Validator  # late: it takes longer to load than a plan to read
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(SCHEMA).iter_errors(told))
    if error is not None:
        place = error.json_path.removeprefix("$").removeprefix(".") or "the plan"
        raise PlanError.of("plan-field-invalid", where=where, place=place, message=_clip(error.message))
