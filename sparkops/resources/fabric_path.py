"""The kind `fabric_path`: what a cable to another node carries, measured once, before engines use it.

Which links there are, the inventory says; what they carried is noted on one of the two nodes beside what both ends
were then. The other node only tells what its ends are now. A measurement that can't be made (engines use the links, the
other node is not there) proves nothing, and is told so.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from sparkops.core.errors import ConvergeFailed, SparkopsError
from sparkops.core.kind_messages import FabricLine, FabricPathAct, FabricPathAsk
from sparkops.core.messages import Fields
from sparkops.core.plan import Step, Violation
from sparkops.core.request_messages import LinksTold
from sparkops.core.states import Observed, Pending, State
from sparkops.core.wording import Message
from sparkops.models.fabric.plan import Cable, Line
from sparkops.resources.fabric import Fabric
from sparkops.resources.measuring.cable import FAULTS, Figure, Measurement, addresses
from sparkops.resources.resource import Peers, Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

PATIENCE, CHANGING, POLL = 90.0, 20.0, 1.0
"""Seconds for which the other node's addresses, and an MTU like this node's, are waited for: its own change of them
runs at the same time."""


@dataclass(frozen=True, kw_only=True)
class FabricPath(Resource):
    """The cable, or the way through a switch, to the node `name`.

    lines: its links, mappings of twin, address (this node's) and peer (the other's address).
    folder: where the node keeps what was measured.
    measures: whether this node measures the cable; else it only tells what its ends are.
    """

    kind: ClassVar[str] = "fabric_path"
    claimed: ClassVar[bool] = False
    leavable: ClassVar[bool] = True
    exclusive: ClassVar[str] = "netplan"
    volatile: ClassVar[frozenset[str]] = frozenset({"why", "gbits", "method", "links", "far"})
    reads: ClassVar[Mapping[str, str]] = {"why": "mapping", "links": "list of list", "far": "list of list"}

    lines: Sequence[Fields]
    folder: str
    measures: bool = True

    @property
    def replaceable(self) -> bool:
        return self.measures

    def ask(self) -> FabricPathAsk:
        return {
            "peer": self.name,
            "lines": [cast("FabricLine", dict(each)) for each in self.lines],
            "folder": self.folder,
        }

    def desired(self) -> State:
        return {"asked": True} if self.measures else {}

    def outdated(self, found: Observed, peers: Peers) -> bool:
        """Whether the other ends are not those that were measured; nothing follows from a node that tells nothing."""
        told = peers(f"{self.kind} {self.node} @{self.name}")
        if not self.measures or not isinstance(found, Mapping) or not isinstance(told, Mapping):
            return False
        return bool(found.get("asked")) and [*map(list, found.get("far") or ())] != [
            *map(list, told.get("links") or ())
        ]

    def pending(self, steps: Mapping[str, Step], found: Observed) -> Mapping[str, Pending | None]:
        changed = next((id for id, step in steps.items() if (step.kind, step.node) == (Fabric.kind, self.node)), None)
        return {"asked": Pending(changed)} if changed and self.measures else {}

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        why = found.get("why") if isinstance(found, Mapping) else None
        if not why or why.get("id") != FAULTS["low"]:
            return ()
        return (self.violation(self._named(Message.from_json(why)), "warning"),)

    def notices(self, found: Observed) -> tuple[Message, ...]:
        why = found.get("why") if isinstance(found, Mapping) else None
        return (self._named(Message.from_json(why)),) if why and why.get("id") != FAULTS["low"] else ()

    def _named(self, why: Message) -> Message:
        return Message.of("fabric-path-unproven", node=self.node, peer=self.name, reason=why, resource=self.id)

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """Measure, and note it. Raises ConvergeFailed where the cable is broken or carries a fraction of its speed."""
        act = yield from self._measured(session)
        order = {**self.order(session, step), "act": act}
        found = self.converged_to((yield from session.stream("converge", order)))
        if act["broken"]:
            reason = Message.from_json(act["why"])
            raise ConvergeFailed.of("fabric-path-broken", where=self.node, peer=self.name, reason=reason)
        return found

    def _measured(self, session: Session) -> Generator[Mapping[str, object], None, FabricPathAct]:
        cable = Cable(self.node, self.name, tuple(Line(**each) for each in self.lines))
        nothing: FabricPathAct = {"why": None, "gbits": None, "method": "", "far": None, "broken": None}
        try:
            here = _look(session, cable)
            known = {self.node: here, self.name: (yield from self._there(session, cable, here))}
        except SparkopsError as error:
            return {**nothing, "why": error.message.as_json()}
        far = [_end(each.peer, each.address, known[self.name]) for each in cable.lines]
        if units := [f"{unit} on {node}" for node, each in known.items() for unit in each["units"]]:
            return {**nothing, "why": Message.of("fabric-in-use", units=units).as_json(), "far": far}
        figures: list[Figure] = []
        for figure in Measurement(
            lambda node: session if node == self.node else session.peer(node), cable, known
        ).figures():
            figures.append(figure)
            yield {"text": "" if figure.gbits is None else f"{figure.gbits:.1f} Gb/s by {figure.method.upper()}"}
        last, wrong = figures[-1], [each for each in figures if each.reason is not None]
        broken = [each for each in wrong if not each.unknown and each.reason and each.reason.id != FAULTS["low"]]
        why = min(broken or wrong, key=lambda each: each.unknown).reason if wrong else None
        return {
            "why": why.as_json() if why else None,
            "gbits": last.gbits,
            "method": last.method,
            "far": far,
            "broken": True if broken else None if any(each.unknown for each in wrong) else False,
        }

    def _there(
        self, session: Session, cable: Cable, here: LinksTold
    ) -> Generator[Mapping[str, object], None, LinksTold]:
        """What the other node says of its ends, once they are as they should be or have been waited for."""
        other, began = session.peer(self.name), time.monotonic()
        near = [here["addresses"].get(each.address) or {} for each in cable.lines]
        while True:
            told = _look(other, cable)
            far = [told["addresses"].get(each.peer) for each in cable.lines]
            alike = all(end and end["mtu"] == own.get("mtu", end["mtu"]) for own, end in zip(near, far, strict=True))
            if told["units"] or alike or time.monotonic() - began > (CHANGING if all(far) else PATIENCE):
                return told
            yield {"text": f"waiting for the links of {self.name}"}
            time.sleep(POLL)


def _look(session: Session, cable: Cable) -> LinksTold:
    told: LinksTold = session.call("measure.look", addresses(session.node, [cable]), timeout=60)
    return told


def _end(address: str, peer: str, told: LinksTold) -> list[object]:
    """An end of a link as the worker of its own node notes it."""
    end = told["addresses"].get(address) or {}
    return [address, peer, *(end.get(key) for key in ("interface", "mtu", "speed_mbps", "mac"))]
