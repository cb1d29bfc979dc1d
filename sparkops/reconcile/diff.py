"""One diff for all kinds: the declared state of a resource against the found one. Pure: no network, no clock.

Wanted None and found is a delete, found None and wanted a create, else the wanted keys that differ. A value that is
unknown on either side makes the whole resource unknown: it is reported and never acted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sparkops.core.plan import Action, Step
from sparkops.core.states import Observed, Pending, State, Unknown, resolve
from sparkops.resources.resource import Resource


def diff(
    resource: Resource,
    found: Observed,
    facts: Mapping[str, object] | Unknown,
    pending: Mapping[str, Pending | None] = MappingProxyType({}),
    *,
    needs: tuple[str, ...] = (),
    replace: bool = False,
) -> Step | Unknown | None:
    """The step for what differs of one resource; None when it is as declared, Unknown when that can't be said.

    `pending` holds the values that steps of the same plan will have changed, None where they will be as declared.
    With `replace` what is there is made anew whether it differs or not.
    """
    if isinstance(found, Unknown):
        return found
    wanted = resource.desired()
    if wanted is None:
        return None if found is None else _step(resource, "delete", found, None, tuple(sorted(found)), needs)
    settled = {key for key, value in pending.items() if value is None}
    wanted = {key: value for key, value in {**resolve(wanted, facts), **pending}.items() if key not in settled}
    for key, value in wanted.items():
        if isinstance(value, Unknown):
            return Unknown.of("desired-value-unknown", key=key, reason=value)
    if found is None:
        changes = tuple(key for key in wanted if key not in resource.implied)
        return _step(resource, "create", None, wanted, changes, needs)
    changes = tuple(
        key for key, each in wanted.items() if isinstance(each, Pending) or not resource.same(key, each, found.get(key))
    )
    unsure = [value for key in wanted if isinstance(value := found.get(key), Unknown)]
    if unsure:
        return unsure[0]
    if replace:
        return _step(resource, "replace", found, wanted, tuple(wanted), needs)
    return _step(resource, "update", found, wanted, changes, needs) if changes else None


def proof(resource: Resource, found: Observed, needs: tuple[str, ...]) -> Step:
    """The step that proves a resource again, whatever it is before."""
    return _step(resource, "verify", found, resource.desired(), (), needs)


def _step(
    resource: Resource, action: Action, found: Observed, after: State, changes: tuple[str, ...], needs: tuple[str, ...]
) -> Step:
    before = {} if isinstance(found, Unknown) else found
    disruptive = resource.disrupts(before, after, changes)
    return Step(
        id=resource.id,
        kind=resource.kind,
        node=resource.node,
        action=action,
        before=before,
        after=after,
        changes=changes,
        needs=needs,
        disruptive=disruptive,
        outage_seconds=resource.outage_seconds(found) if disruptive else None,
        service=resource.service,
        role=resource.role,
        diff=resource.text_diff(before) if action != "verify" else "",
    )
