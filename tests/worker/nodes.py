"""The road of one resource without a network: ask, compare as the generic diff does, converge, look again."""

import threading
from typing import Any

from sparkops.core.messages import Refused
from sparkops.core.plan import Step
from sparkops.resources.resource import Resource
from sparkops.worker import dispatch
from sparkops.worker.calls import Call


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
    before = look["found"]
    want = resource.desired()
    changes = differing(resource, before)
    if not changes:
        return []
    action: Any = "delete" if want is None else "create" if before is None else "update"
    step = Step(
        id=resource.id,
        kind=resource.kind,
        node=resource.node,
        action=action,
        before=before,
        after=want,
        changes=tuple(changes),
    )
    args = {
        "kind": resource.kind,
        "id": resource.id,
        "ask": ask,
        "before": before,
        "volatile": sorted(resource.volatile),
        "want": want,
        "action": action,
        "act": resource.act(step),
    }
    after = dispatch.converge(call(), args)
    if "changed" in after:
        raise Refused.of("state-changed", type="stale", keys=after["changed"])
    assert differing(resource, after["found"]) == [], after
    return changes
