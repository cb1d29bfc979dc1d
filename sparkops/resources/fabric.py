"""The kind `fabric`: the addresses of a node's links between nodes, written by netplan in a file of sparkops' own.

Which interface a link is, the node tells (`worker/kinds/fabric.py`); so does everything for which it must not be
touched. A change is tried first, and taken back by the node itself unless a fresh connection confirms it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

from sparkops.core.errors import SparkopsError
from sparkops.core.kind_messages import FabricAsk, FabricLink
from sparkops.core.messages import Fields
from sparkops.core.plan import Step, Violation
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.resource import Peers, Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

FULL_SPEED = 200_000
"""Mb/s that a cable of a Spark is made for."""
LANES, GTS = 4, 32.0
"""PCIe lanes and GT/s of each function; a BIOS before April 2026 gives the second one two lanes."""
CONFIRMING = 30.0


@dataclass(frozen=True, kw_only=True)
class Fabric(Resource):
    """The links of a node. `name` is the netplan file that sparkops writes.

    links: mappings of slot, port, twin and address (with prefix); none: the links are only judged.
    interfaces: port to interface names, its twins in order, where they are not those of a ConnectX-7.
    port: the port to judge where no links are declared.
    mtu: bytes; None leaves it alone.
    speed: Mb/s that each link must have; None: less than 200000 is a warning.
    adopt: set files of others aside that give these interfaces other addresses.
    """

    kind: ClassVar[str] = "fabric"
    exclusive: ClassVar[str] = "netplan"
    at_path: ClassVar[bool] = True
    file_type: ClassVar[str] = "file"
    volatile: ClassVar[frozenset[str]] = frozenset({"rails", "faults", "twins_share", "session"})
    reads: ClassVar[Mapping[str, str]] = {
        "rails": "mapping",
        "faults": "list of mapping",
        "twins_share": "list of text",
    }
    removed_by: ClassVar[str] = "fabric-removed-by"

    links: Sequence[Fields] = ()
    interfaces: Mapping[str, Sequence[str]] = field(default_factory=dict)
    port: str | None = None
    mtu: int | None = None
    speed: int | None = None
    adopt: bool = False

    def __post_init__(self) -> None:
        validators.path(self.name, "the name of a fabric", self.where)

    def in_place(self, found: Observed) -> bool:
        return True

    def ask(self) -> FabricAsk:
        return {
            "links": [cast("FabricLink", dict(each)) for each in self.links],
            "interfaces": {port: list(names) for port, names in (self.interfaces or {}).items()},
            "port": self.port,
            "mtu": self.mtu,
            "adopt": self.adopt,
        }

    def desired(self) -> State:
        wanted: dict[str, object] = {"lasting": True} if self.links else {}
        for each in self.links:
            wanted[each["slot"]] = each["address"]
            if self.mtu is not None:
                wanted[f"{each['slot']}.mtu"] = self.mtu
        return wanted

    def same(self, key: str, wanted: object, found: object) -> bool:
        return wanted in found if isinstance(found, (list, tuple)) else bool(wanted == found)

    def disrupts(self, before: State, after: State, changes: tuple[str, ...]) -> bool:
        """Whatever is tried here may cut what runs over the links."""
        return True

    def felt(self, changes: Collection[str]) -> bool:
        return True

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        if not isinstance(found, Mapping):
            return ()
        differs = any(not self.same(key, value, found.get(key)) for key, value in (self.desired() or {}).items())
        wrong = [self.violation(Message.from_json(each), "error") for each in found.get("faults", ())]
        if found.get("session") and differs and not wrong:
            wrong.append(self.violation(Message.of("fabric-session-interface"), "error"))
        twins = (Message.of("fabric-twins-share-subnet", twins=pair) for pair in found.get("twins_share", ()))
        wrong += [self.violation(each, "warning") for each in twins]
        rails = [each for each in found.get("rails", {}).values() if isinstance(each, Mapping)]
        return (*wrong, *(each for rail in rails for each in self._judged(rail)))

    def _judged(self, rail: Mapping[str, object]) -> Generator[Violation, None, None]:
        name, speed = rail.get("interface"), rail.get("speed_mbps")
        if not rail.get("carrier"):
            yield self.violation(Message.of("fabric-link-down", interface=name), "warning")
        elif isinstance(speed, int) and speed < (self.speed or FULL_SPEED):
            message = Message.of("fabric-link-slow", interface=name, speed=speed, expected=self.speed or FULL_SPEED)
            yield self.violation(message, "error" if self.speed else "warning")
        lanes, gts = rail.get("pcie_lanes"), rail.get("pcie_gts")
        if isinstance(lanes, int) and isinstance(gts, (int, float)) and (lanes < LANES or gts < GTS):
            message = Message.of("fabric-pcie-narrow", interface=name, lanes=lanes, gts=gts, expected=LANES)
            yield self.violation(message, "warning")

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """Like every kind; where the node asks for it, what is tried is confirmed over a connection of its own.

        Without that the node takes the trial back and answers so.
        """
        stream = session.stream("converge", self.order(session, step))
        while True:
            try:
                progress = next(stream)
            except StopIteration as done:
                return self.converged_to(done.value)
            if token := progress.get("confirm"):
                yield from self._confirm(session, str(token))
            yield {key: value for key, value in progress.items() if key != "confirm"}

    def _confirm(self, session: Session, token: str) -> Generator[Mapping[str, object], None, None]:
        try:
            with session.fresh() as other:
                other.call(f"{self.kind}.confirm", {"token": token}, timeout=CONFIRMING)
        except SparkopsError as error:
            yield {"notice": {"id": "fabric-confirmation-failed", "args": {"reason": error.message.as_json()}}}
