"""One diff for all kinds: the declared state of a resource against the found one. Pure: no network, no clock.

Wanted None and found is a delete, found None and wanted a create, else the wanted keys that differ. A value that is
unknown on either side makes the whole resource unknown: it is reported and never acted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sparkops.core.plan import Action
from sparkops.core.states import Observed, Pending, State, Unknown, resolve
from sparkops.resources.resource import Resource


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to be done: the action, both states and the keys that differ."""

    action: Action
    before: State
    after: State
    changes: tuple[str, ...]


def diff(
    resource: Resource,
    found: Observed,
    facts: Mapping[str, object] | Unknown,
    pending: Mapping[str, Pending | None] = MappingProxyType({}),
    *,
    replace: bool = False,
) -> Difference | Unknown | None:
    """The difference of one resource; None when it is as declared, Unknown when that can't be said.

    `pending` holds the values that steps of the same plan will have changed, None where they will be as declared.
    With `replace` what is there is made anew whether it differs or not.
    """
    if isinstance(found, Unknown):
        return found
    wanted = resource.desired()
    if wanted is None:
        return None if found is None else Difference("delete", found, None, tuple(sorted(found)))
    settled = {key for key, value in pending.items() if value is None}
    wanted = {key: value for key, value in {**resolve(wanted, facts), **pending}.items() if key not in settled}
    for key, value in wanted.items():
        if isinstance(value, Unknown):
            return Unknown.of("desired-value-unknown", key=key, reason=value)
    if found is None:
        return Difference("create", None, wanted, tuple(key for key in wanted if key not in resource.implied))
    changes = tuple(key for key in wanted if _differs(resource, key, wanted[key], found.get(key)))
    unsure = [value for key in wanted if isinstance(value := found.get(key), Unknown)]
    if unsure:
        return unsure[0]
    if replace:
        return Difference("replace", found, wanted, tuple(wanted))
    return Difference("update", found, wanted, changes) if changes else None


def _differs(resource: Resource, key: str, wanted: object, found: object) -> bool:
    return isinstance(wanted, Pending) or not resource.same(key, wanted, found)
