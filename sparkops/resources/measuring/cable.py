"""What one cable carries: whole packets over each link in both directions, and its bandwidth, alone and with its twin.

Bounded in seconds and bytes. It must not know an inventory, nor what follows from a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.request_messages import LinkCounters, LinksTold, PathRequest
from sparkops.core.wording import Message
from sparkops.models.fabric.figures import Verdict, expected, moved, others, shared, verdict
from sparkops.models.fabric.plan import Cable, Line
from sparkops.nodes.session import returned

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

SECONDS, BYTES = 3.0, 16 << 30
"""Of each measurement; the bytes bound TCP."""
MARGIN = 60.0
FAULTS: Mapping[Verdict | None, str] = {
    "low": "fabric-link-low",
    "degraded": "fabric-link-degraded",
    None: "fabric-link-unproven",
}


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


def addresses(node: str, whole: Sequence[Cable]) -> dict[str, list[str]]:
    """What `measure.look` is asked on a node: its own end of every link."""
    own = [line.address for each in whole if each.sender == node for line in each.lines]
    return {"addresses": own + [line.peer for each in whole if each.receiver == node for line in each.lines]}


def _errors(told: Mapping[str, LinkCounters]) -> dict[str, int]:
    """The error counters of a node by `counter at address`."""
    return {f"{name} at {address}": value for address, own in told.items() for name, value in own["errors"].items()}


def _lossy(lost: Mapping[str, Mapping[str, int]]) -> Message | None:
    """What moved while it was measured; None where nothing did, which proves no health."""
    words = [f"{node}: {name} by {count}" for node, own in lost.items() for name, count in own.items()]
    return Message.of("fabric-link-lossy", counters=words) if words else None


class Measurement:
    """The measurements of one cable. `sessions` gives the session of a node, `known` what `measure.look` told there."""

    def __init__(
        self, sessions: Callable[[str], Session], cable: Cable, known: Mapping[str, LinksTold], seconds: float = SECONDS
    ) -> None:
        self.session, self.cable, self.seconds = sessions, cable, seconds
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
        if here is None or there is None:
            node, address = (self.cable.sender, line.address) if here is None else (self.cable.receiver, line.peer)
            return None, Message.of("fabric-address-absent", node=node, address=address)
        mtu = here["mtu"]
        if mtu != there["mtu"]:
            ends = {"here": f"{self.cable.sender} {mtu}", "there": f"{self.cable.receiver} {there['mtu']}"}
            return 0, Message.of("fabric-mtu-differs", **ends)
        for node, own, other in (
            (self.cable.sender, line.address, line.peer),
            (self.cable.receiver, line.peer, line.address),
        ):
            order: PathRequest = {"address": own, "peer": other, "mtu": mtu}
            answer = self.session(node).call("measure.path", order, timeout=60)
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
            after = self._counters(lines)
        except SparkopsError as error:
            return self._wrong(line, error.message, mtu=mtu, unknown=True)
        gbits, wanted = sum(rates.values()), expected(self._end(lines[0])["speed_mbps"], len(lines))
        foreign = self._others(lines, before, after, gbits)
        judged = verdict(gbits, wanted, method, busy, foreign)
        args = {"gbits": round(gbits, 1), "expected": round(wanted or 0, 1)}
        wrong = FAULTS.get(judged, "")
        if judged is None and shared(foreign, wanted):
            wrong, args["others"] = "fabric-link-shared", round(foreign, 1)
        lost = {node: moved(_errors(own), _errors(after[node])) for node, own in before.items()}
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

    def _counters(self, lines: Sequence[Line]) -> dict[str, dict[str, LinkCounters]]:
        """What both ends count, by node and address."""
        ends = {
            self.cable.sender: [each.address for each in lines],
            self.cable.receiver: [each.peer for each in lines],
        }
        return {
            node: self.session(node).call("measure.counters", {"addresses": own}, timeout=60)
            for node, own in ends.items()
        }

    def _others(
        self,
        lines: Sequence[Line],
        before: Mapping[str, Mapping[str, LinkCounters]],
        after: Mapping[str, Mapping[str, LinkCounters]],
        gbits: float,
    ) -> float:
        """Gb/s of others' on the way that was measured, at the end that saw more."""
        seconds = min(self.seconds, len(lines) * BYTES * 8e-9 / max(gbits, 1e-9))
        sender, receiver = self.cable.sender, self.cable.receiver
        out = [(before[sender][each.address]["sent"], after[sender][each.address]["sent"]) for each in lines]
        into = [(before[receiver][each.peer]["received"], after[receiver][each.peer]["received"]) for each in lines]
        return max(others(out, gbits, seconds), others(into, gbits, seconds))

    def _end(self, line: Line) -> Fields:
        return self.here["addresses"][line.address]

    def _far_end(self, line: Line) -> Fields:
        return self.there["addresses"][line.peer]

    def _measured(self, lines: Sequence[Line], method: str) -> tuple[dict[str, float], float]:
        """Gb/s by line and the busier side's processors: as the receiver counted; by RDMA only the sender counts."""
        common = {"method": method, "seconds": self.seconds, "bytes": BYTES}
        to = [{"slot": str(each.twin), "address": each.peer} for each in lines]
        receiver = self.session(self.cable.receiver)
        limit = self.seconds + MARGIN
        receiving = receiver.stream("measure.run", {**common, "mode": "receive", "links": to}, timeout=limit)
        ports = next(receiving)["ports"]
        sent = [
            {"slot": str(each.twin), "address": each.address, "peer": each.peer, "port": ports[str(each.twin)]}
            for each in lines
        ]
        order = {**common, "mode": "send", "links": sent}
        told = self.session(self.cable.sender).call("measure.run", order, timeout=limit)
        received = returned(receiving)
        rates: Mapping[str, float] = (told if method == "rdma" else received)["rates"]
        return {slot: float(rate) for slot, rate in rates.items()}, max(float(told["busy"]), float(received["busy"]))
