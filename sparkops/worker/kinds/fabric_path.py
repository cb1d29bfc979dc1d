"""Node half of `fabric_path`: what was measured of the links to another node, and whether they are still the same."""

import os

from sparkops.core import atomic
from sparkops.core.kind_messages import FabricPathAct, FabricPathAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call, Refused
from sparkops.worker.facts import network
from sparkops.worker.requests import measure
from sparkops.worker.system import safe_path

CALLS = measure.CALLS
"""Its measurement is the request `measure`, which the controller calls on both nodes."""


def observe(ask: FabricPathAsk, *, root: str = "/") -> dict[str, object]:
    """`asked`: whether these links were measured and carry, or it was found that they can't be; `links` as they are.

    With that `why`, the reason for which they are not proven, None where they are, what they carried, and the `far`
    ends as they were then.
    """
    links = _links(ask, root)
    kept = atomic.mapping(os.path.join(ask["folder"], _file(ask)))
    if kept.get("links") != links or kept.get("broken"):
        return {"asked": False, "links": links}
    return {"asked": True, "links": links, **{key: kept.get(key) for key in ("why", "gbits", "method", "far")}}


def converge(call: Call, ask: FabricPathAsk, found: State, want: State, act: FabricPathAct, *, root: str = "/") -> None:
    """Note what was measured. Raises Refused where nothing was found out of a cable that was found broken."""
    links, kept = _links(ask, root), atomic.mapping(os.path.join(ask["folder"], _file(ask)))
    same = kept.get("links") == links and act["far"] in (None, kept.get("far"))
    if act["broken"] is None and kept.get("broken") and same:
        raise Refused.of("fabric-path-still-broken", peer=ask["peer"], reason=kept["why"], now=act["why"])
    safe_path.note(ask["folder"], _file(ask), {"links": links, **act})


def _file(ask: FabricPathAsk) -> str:
    return f"{ask['peer']}.json"


def _links(ask: FabricPathAsk, root: str) -> list[object]:
    """What a measurement holds for: addresses, and the interface here with its MTU, speed and hardware address."""
    told = network.network(root)
    links: list[object] = []
    for each in ask["lines"]:
        name = told["owners"].get(each["address"])
        interface = told["interfaces"].get(name) or {}
        links.append(
            [each["address"], each["peer"], name, *(interface.get(key) for key in ("mtu", "speed_mbps", "mac"))]
        )
    return links
