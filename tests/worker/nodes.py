"""The road of one resource without a network: ask, compare as the generic diff does, converge, look again."""

import threading
from pathlib import Path
from typing import Any

from sparkops.core.messages import Refused
from sparkops.core.plan import Step
from sparkops.resources.resource import Resource
from sparkops.worker import dispatch
from sparkops.worker.calls import Call, kind


def call() -> Call:
    """A call whose progress nobody listens to."""
    return Call(1, lambda message: None, threading.Event())


def differing(resource: Resource, found: dict[str, Any] | None) -> list[str]:
    """The keys to change; ["existence"] for what is to come or to go."""
    want = resource.desired()
    if want is None or found is None:
        return [] if want is found else ["existence"]
    return sorted(key for key in want if not resource.same(key, want[key], found.get(key)))


def apply(resource: Resource) -> list[str]:
    """Bring one resource into its state on this very machine; returns what had to change, and proves it."""
    ask = resource.ask()
    look = dispatch.look(resource.kind, resource.id, ask)
    assert "$unknown" not in look, look
    step = step_of(resource, look["found"])
    if not step.changes:
        return []
    args = {
        "kind": resource.kind,
        "id": resource.id,
        "ask": ask,
        "before": step.before,
        "volatile": sorted(resource.volatile),
        "want": step.after,
        "action": step.action,
        "act": resource.act(step),
    }
    after = dispatch.converge(call(), args)
    if "changed" in after:
        raise Refused.of("state-changed", type="stale", keys=after["changed"])
    assert differing(resource, after["found"]) == [], after
    return list(step.changes)


def apply_below(root: Path, resource: Resource) -> list[str]:
    """`apply` by the kind's own functions, with `root` as the folder that the node's paths start from."""
    module, ask, below = kind(resource.kind), resource.ask(), str(root)

    def look() -> Any:
        if hasattr(module, "observe_many"):
            return module.observe_many({resource.id: ask}, root=below)[resource.id]
        return module.observe(ask, root=below)

    step = step_of(resource, look())
    if not step.changes:
        return []
    module.converge(call(), ask, step.before, step.after, resource.act(step), root=below)
    assert differing(resource, look()) == []
    return list(step.changes)


def step_of(resource: Resource, before: dict[str, Any] | None) -> Step:
    """The step from what was found to what is declared; without changes where nothing is to be done."""
    want = resource.desired()
    action: Any = "delete" if want is None else "create" if before is None else "update"
    changes = tuple(differing(resource, before))
    return Step(
        id=resource.id,
        kind=resource.kind,
        node=resource.node,
        action=action,
        before=before,
        after=want,
        changes=changes,
    )
