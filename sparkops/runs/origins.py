"""Who moved: the node, or the declaration. By the digests of what was declared when a thing was last proven. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.core.digests import digest
from sparkops.core.plan import Plan, Step
from sparkops.core.report import Origin
from sparkops.runs.store import Thing


def origins(plan: Plan, known: Mapping[str, Thing]) -> dict[str, Origin]:
    """By resource, for each step that a difference led to; without an entry where it can't be told."""
    keys = {each.id: each.keys for each in plan.declared}
    found: dict[str, Origin] = {}
    for step in plan.steps:
        if step.action in ("create", "update", "delete") and step.id in keys:
            origin = origin_of(step, keys[step.id], known.get(step.id, Thing()))
            if origin is not None:
                found[step.id] = origin
    return found


def origin_of(step: Step, keys: Mapping[str, str] | None, before: Thing) -> Origin | None:
    """Who moved, of one difference. `keys` are the digests of what is declared now, None for absence."""
    if not before.proven:
        return "new"
    if keys is None or before.keys is None:
        return "corrective" if keys is None and before.keys is None else "intentional"
    if step.action == "create":
        return "corrective" if keys == before.keys else "both"
    found = {key: digest((step.before or {}).get(key)) for key in step.changes}
    told = {_moved(key, keys, found, before) for key in step.changes}
    if None in told or not told:
        return None
    return "both" if len(told) > 1 else told.pop()


def _moved(key: str, keys: Mapping[str, str], found: Mapping[str, str], before: Thing) -> Origin | None:
    """Of one key that differs: None where the declaration or the node does not identify its value."""
    then = before.keys or {}
    if "" in (keys.get(key), then.get(key), found[key], before.found.get(key)):
        return None
    declared = keys.get(key) != then.get(key)
    node = key in before.found and found[key] != before.found[key]
    if declared and node:
        return "both"
    return "intentional" if declared else "corrective" if node else None
