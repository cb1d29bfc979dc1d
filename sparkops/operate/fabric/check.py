"""Prove the fabric: whole packets over each link in both directions, and what it carries, alone and with its twin.

Bounded in seconds and bytes, one cable after the other. It must not know how a person reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparkops.core import events
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.models.fabric import plan as fabric_plan
from sparkops.models.fabric.figures import Verdict, expected, moved, verdict
from sparkops.nodes.session import returned
from sparkops.operate.connect import Context, reach
from sparkops.reconcile.fleet import Fleet

SECONDS, BYTES = 3.0, 16 << 30
"""Of each measurement; the bytes bound TCP."""
MARGIN = 60.0
FAULTS: Mapping[Verdict | None, str] = {
    "low": "fabric-link-low",
    "degraded": "fabric-link-degraded",
    None: "fabric-link-unproven",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One link between two nodes: the twin's number, and the address at either end."""

    twin: int
    address: str
    peer: str


@dataclass(frozen=True, slots=True)
class Cable:
    """The lines of one cable, or of two nodes at a switch; traffic goes from `sender` to `receiver`."""

    sender: str
    receiver: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was found of one cable: of a line, or of all at once (`line` is None).

    `gbits` and `method` (rdma, tcp) where it was measured, `mtu` the bytes that pass whole in both directions, 0 where
    they do not. `reason` says what is wrong or why it is not known, `unknown` which of both.
    """

    sender: str
    receiver: str
    line: Line | None
    gbits: float | None = None
    wanted: float | None = None
    method: str = ""
    mtu: int | None = None
    verdict: Verdict | None = None
    reason: Message | None = None
    unknown: bool = False


@dataclass
class Checked:
    """All figures, and the nodes that did not answer."""

    figures: list[Figure] = field(default_factory=list)
    silent: dict[str, Message] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 all is good, 2 something is wrong, 3 something is not known."""
        if any(each.reason is not None and not each.unknown for each in self.figures):
            return 2
        return 3 if self.silent or any(each.unknown for each in self.figures) else 0


def cables(inventory: Inventory, nodes: Sequence[str]) -> tuple[Cable, ...]:
    """What there is to measure between these nodes: at a switch each with the next one of them, else every cable.

    Raises InventoryError where the inventory does not declare the links.
    """
    variables: dict[str, Fields] = {
        name: {"fabric": inventory.variables(name).get("fabric"), "state": node.state}
        for name, node in inventory.nodes.items()
    }
    found: dict[tuple[str, str], list[Line]] = {}
    for node in nodes:
        declared = variables[node]["fabric"] or {}
        for link in fabric_plan.links_of(node, variables):
            for peer, address in link.peers:
                wanted = declared.get("topology") != "switch" or _next(node, nodes) == peer
                if wanted and peer in nodes and (peer, node) not in found:
                    own = link.address.partition("/")[0]
                    found.setdefault((node, peer), []).append(Line(link.twin, own, address))
    if not found:
        found = _by_address(inventory, nodes)
    if not found:
        raise InventoryError.of("fabric-not-declared", nodes=list(nodes))
    return tuple(Cable(one, other, tuple(lines)) for (one, other), lines in found.items())


def _next(node: str, nodes: Sequence[str]) -> str:
    return nodes[(list(nodes).index(node) + 1) % len(nodes)]


def _by_address(inventory: Inventory, nodes: Sequence[str]) -> dict[tuple[str, str], list[Line]]:
    """One line between each node and the next, where only `fabric.address` is declared."""
    found: dict[tuple[str, str], list[Line]] = {}
    for node in nodes:
        peer = _next(node, nodes)
        own, other = inventory.fabric_address(node), inventory.fabric_address(peer)
        if own and other and node != peer and (peer, node) not in found:
            found[node, peer] = [Line(0, own.partition("/")[0], other.partition("/")[0])]
    return found


def check(context: Context, nodes: Sequence[str], *, seconds: float = SECONDS, serving: bool = False) -> Checked:
    """Measure all cables between these nodes. Engines that use them are refused, unless `serving` lets them."""
    whole = cables(context.inventory, nodes)
    taking_part = sorted({name for each in whole for name in (each.sender, each.receiver)})
    checked = Checked()
    with reach(context, taking_part, ["measure"]) as fleet:
        known, silent = fleet.each(
            taking_part, lambda node, session: session.call("measure.look", _addresses(node, whole))
        )
        checked.silent = {node: error.message for node, error in silent.items()}
        busy = {node: found["units"] for node, found in known.items() if found["units"]}
        if busy and not serving:
            units = [f"{unit} on {node}" for node, each in busy.items() for unit in each]
            raise InventoryError.of("fabric-in-use", units=units)
        for cable in whole:
            if cable.sender in known and cable.receiver in known:
                context.listener(events.Notice(node=cable.sender, message=_measuring(cable)))
                checked.figures += _Cable(fleet, cable, known, seconds).figures()
    return checked


def _measuring(cable: Cable) -> Message:
    return Message.of("fabric-measuring", sender=cable.sender, receiver=cable.receiver)


def _addresses(node: str, whole: Sequence[Cable]) -> dict[str, list[str]]:
    own = [line.address for each in whole if each.sender == node for line in each.lines]
    return {"addresses": own + [line.peer for each in whole if each.receiver == node for line in each.lines]}


def _lossy(lost: Mapping[str, Mapping[str, int]]) -> Message | None:
    """What moved while it was measured; None where nothing did, which proves no health."""
    words = [f"{node}: {name} by {count}" for node, own in lost.items() for name, count in own.items()]
    return Message.of("fabric-link-lossy", counters=words) if words else None


class _Cable:
    """The measurements of one cable."""

    def __init__(self, fleet: Fleet, cable: Cable, known: Mapping[str, Fields], seconds: float) -> None:
        self.fleet, self.cable, self.seconds = fleet, cable, seconds
        self.here, self.there = known[cable.sender], known[cable.receiver]

    def figures(self) -> Iterator[Figure]:
        """Each line alone, then all of them together where there are several; nothing is sent over a broken line."""
        good = []
        for line in self.cable.lines:
            mtu, fault = self._path(line)
            figure = self._figure((line,), line, mtu) if fault is None else self._wrong(line, fault, mtu=mtu)
            good.append(figure.gbits is not None)
            yield figure
        if len(good) > 1 and all(good):
            yield self._figure(self.cable.lines, None, None)

    def _wrong(self, line: Line | None, reason: Message, *, mtu: int | None = None, unknown: bool = False) -> Figure:
        ends = (self.cable.sender, self.cable.receiver)
        return Figure(sender=ends[0], receiver=ends[1], line=line, mtu=mtu, reason=reason, unknown=unknown)

    def _path(self, line: Line) -> tuple[int | None, Message | None]:
        """The MTU that passes whole both ways, and why it does not."""
        here, there = self.here["addresses"].get(line.address), self.there["addresses"].get(line.peer)
        for found, node, address in ((here, self.cable.sender, line.address), (there, self.cable.receiver, line.peer)):
            if found is None:
                return None, Message.of("fabric-address-absent", node=node, address=address)
        mtu = here["mtu"]
        if mtu != there["mtu"]:
            ends = {"here": f"{self.cable.sender} {mtu}", "there": f"{self.cable.receiver} {there['mtu']}"}
            return 0, Message.of("fabric-mtu-differs", **ends)
        for node, own, other in (
            (self.cable.sender, line.address, line.peer),
            (self.cable.receiver, line.peer, line.address),
        ):
            answer = self.fleet.session(node).call(
                "measure.path", {"address": own, "peer": other, "mtu": mtu}, timeout=60
            )
            if not answer["small"]:
                return None, Message.of("fabric-peer-silent", address=own, peer=other)
            if not answer["whole"]:
                return 0, Message.of("fabric-mtu-too-large", address=own, peer=other, mtu=mtu)
        return mtu, None

    def _figure(self, lines: Sequence[Line], line: Line | None, mtu: int | None) -> Figure:
        rdma = all(self._end(each)["rdma"] and self._far_end(each)["rdma"] for each in lines)
        method = "rdma" if rdma and self.here["perftest"] and self.there["perftest"] else "tcp"
        try:
            before = self._counters(lines)
            rates, busy = self._measured(lines, method)
            lost = {node: moved(before[node], after) for node, after in self._counters(lines).items()}
        except SparkopsError as error:
            return self._wrong(line, error.message, mtu=mtu, unknown=True)
        gbits, wanted = sum(rates.values()), expected(self._end(lines[0])["speed_mbps"], len(lines))
        judged = verdict(gbits, wanted, method, busy)
        args = {"gbits": round(gbits, 1), "expected": round(wanted or 0, 1)}
        wrong = FAULTS.get(judged, "")
        return Figure(
            sender=self.cable.sender,
            receiver=self.cable.receiver,
            line=line,
            gbits=gbits,
            wanted=wanted,
            method=method,
            mtu=mtu,
            verdict=judged,
            reason=Message.of(wrong, **args) if wrong else _lossy(lost),
            unknown=judged is None,
        )

    def _counters(self, lines: Sequence[Line]) -> dict[str, dict[str, int]]:
        """The error counters of both ends by `RDMA address, counter`; nothing is asked where there is no RDMA."""
        found: dict[str, dict[str, int]] = {}
        for node, end, addresses in (
            (self.cable.sender, self._end, [each.address for each in lines]),
            (self.cable.receiver, self._far_end, [each.peer for each in lines]),
        ):
            if all(end(each)["rdma"] for each in lines):
                told = self.fleet.session(node).call("measure.counters", {"addresses": addresses}, timeout=60)
                found[node] = {
                    f"{name} at {address}": value for address, own in told.items() for name, value in own.items()
                }
        return found

    def _end(self, line: Line) -> Fields:
        found: Mapping[str, object] = self.here["addresses"][line.address]
        return found

    def _far_end(self, line: Line) -> Mapping[str, object]:
        found: Mapping[str, object] = self.there["addresses"][line.peer]
        return found

    def _measured(self, lines: Sequence[Line], method: str) -> tuple[dict[str, float], float]:
        """Gb/s by line and the busier side's processors: as the receiver counted; by RDMA only the sender counts."""
        common = {"method": method, "seconds": self.seconds, "bytes": BYTES}
        to = [{"slot": str(each.twin), "address": each.peer} for each in lines]
        receiver = self.fleet.session(self.cable.receiver)
        limit = self.seconds + MARGIN
        receiving = receiver.stream("measure.run", {**common, "mode": "receive", "links": to}, timeout=limit)
        ports = next(receiving)["ports"]
        sent = [
            {"slot": str(each.twin), "address": each.address, "peer": each.peer, "port": ports[str(each.twin)]}
            for each in lines
        ]
        order = {**common, "mode": "send", "links": sent}
        told = self.fleet.session(self.cable.sender).call("measure.run", order, timeout=limit)
        received = returned(receiving)
        rates: Mapping[str, float] = (told if method == "rdma" else received)["rates"]
        return {slot: float(rate) for slot, rate in rates.items()}, max(float(told["busy"]), float(received["busy"]))
