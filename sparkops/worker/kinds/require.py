"""Node half of `require`: the facts of one group, flat; what they should be is judged by the controller.

Several requirements on one node share one look at each group.
"""

from collections.abc import Mapping
from typing import Any

from sparkops.core.messages import UNKNOWN
from sparkops.worker.calls import Unknown
from sparkops.worker.requests import facts

ABSENCE = ("present", "error", "reason")
"""The keys by which a group tells that the node has no such thing."""


def observe_many(asks: dict[str, dict[str, object]]) -> dict[str, dict[str, object] | Unknown]:
    """For each `{group, args, keys}` the values at the dotted `keys`.

    Unknown as soon as one of the keys is unknown: half a judgement would pass for a whole one. A key that the group
    does not have is None.
    """
    node = facts.Node()
    return look(node, asks)


def look(node: facts.Node, asks: dict[str, dict[str, Any]]) -> dict[str, dict[str, object] | Unknown]:
    wanted = {each: (str(ask["group"]), ask.get("args") or {}) for each, ask in asks.items() if ask["keys"]}
    found = facts.gather(node, wanted)
    return {each: _chosen(found.get(each, {}), [str(key) for key in ask["keys"]]) for each, ask in asks.items()}


def _chosen(group: dict[str, object] | Unknown, keys: list[str]) -> dict[str, object] | Unknown:
    if isinstance(group, Unknown):
        return group
    chosen = {key: _value(group, key) for key in [*keys, *(key for key in ABSENCE if key in group)]}
    for key, value in chosen.items():
        if isinstance(value, Mapping) and UNKNOWN in value:
            return Unknown.of("fact-unknown", fact=key, reason=value[UNKNOWN])
    return chosen


def _value(group: Mapping[str, object], key: str) -> object:
    here: object = group
    for part in key.split("."):
        if isinstance(here, Mapping) and UNKNOWN in here:
            return here
        here = here.get(part) if isinstance(here, Mapping) else None
    return here
