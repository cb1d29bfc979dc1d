"""The ranks of one engine as one group: when all of them start, and why all of them end.

Pure: messages and the time come in, a phase and its reason come out. The head (rank 0) opens a run of all ranks, its
epoch, once every rank waits; each other rank follows the head. It must not know sockets, containers or systemd.
"""

import hashlib
import hmac
import json
from typing import Any, NamedTuple

PREPARING, WAITING, RUNNING, ENDING, LEFT = "preparing", "waiting", "running", "ending", "left"
"""Of a rank: not ready to start; ready; its engine runs; its engine is being ended; its launcher ends."""
LOST, CUT, ENGINE, HANG, ANEW, STOP = "lost", "cut", "engine", "hang", "anew", "stop"
"""Why a run ended: a node is silent; only the first road to it is; an engine ended; it hung; a launcher was started
anew; somebody asked for it."""
FAILURES = 2
"""Questions without an answer that a hang needs."""
PROTOCOL = b"1"
"""Of the fields of a message: launchers that do not understand each other are not there for each other."""
DIGEST = 32
LONGEST = 300
"""Characters of a reason in a message, of which two fit into one packet."""


def sealed(key: bytes, fields: "dict[str, object]") -> bytes:
    """A message on its way: its HMAC-SHA256 by the group's key, and JSON."""
    data = json.dumps(fields, separators=(",", ":")).encode()
    return hmac.new(key, PROTOCOL + data, hashlib.sha256).digest() + data


def opened(key: bytes, packet: bytes) -> "dict[str, object] | None":
    """What was sealed by the same key and protocol; None for anything else."""
    code, data = packet[:DIGEST], packet[DIGEST:]
    if not hmac.compare_digest(code, hmac.new(key, PROTOCOL + data, hashlib.sha256).digest()):
        return None
    fields = json.loads(data)
    return fields if isinstance(fields, dict) else None


class Limits(NamedTuple):
    """Seconds, and restarts that nobody asked for until a boot. `patience` is how long an engine may show no sign of
    life (0: for ever), `longest` how long work that is seen may take; between two restarts after hangs lies `cooldown`.
    """

    silence: float
    uptime: float
    patience: float
    longest: float
    cooldown: float
    restarts: int


class End(NamedTuple):
    """The last run's end: which run, its cause, and why in words. Told until the next one, as a message can be lost."""

    epoch: str = ""
    cause: str = ""
    why: str = ""


class Peer:
    """Another rank, as its newest messages say. `run` is its launcher's process, `said` its last message.

    A message counts when it names our own run, which a replayed one of earlier runs cannot, and when its number is new.
    `met` is a run that said something and does not know ours yet.
    """

    def __init__(self, rank: int, node: str) -> None:
        self.name = f"rank {rank} ({node})"
        self.run, self.met = "", ""
        self.former: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.heard: dict[str, float] = {}
        self.said: dict[str, Any] = {}

    def takes(self, fields: "dict[str, Any]", to: str, now: float) -> None:
        """Take a message, if it is new and meant for the run `to`."""
        run, number, road = fields["run"], fields["number"], fields["road"]
        if run in self.former:
            return
        if fields["to"] != to:
            self.met = run
            return
        if run != self.run:
            self.former.add(self.run)
            self.run, self.met, self.said = run, "", {}
            self.numbers.clear()
            self.heard.clear()
        if number <= self.numbers.get(road, 0):
            return
        if number > max(self.numbers.values(), default=0):
            self.said = fields
        self.numbers[road], self.heard[road] = number, now

    def hears(self, roads: "list[str]", now: float, limit: float) -> "list[str]":
        return [road for road in roads if road in self.heard and now - self.heard[road] <= limit]


class Group:
    """One rank's view. `roads` are the networks that connect the ranks; without the first no engine can run.

    phase and why say where it stands and what it waits for; `epoch` names the run of all ranks, "" for none, and `end`
    is how the last one ended. `stands_on` is what all ranks must have alike to start, by name. `faults` are this rank's
    own roads that can't be used. `restarts` are those that nobody asked for: when (seconds of this boot) and why.
    """

    def __init__(
        self, rank: int, nodes: "list[str]", roads: "list[str]", digest: str, run: str, limits: Limits
    ) -> None:
        self.rank, self.roads, self.run, self.limits = rank, roads, run, limits
        self.stands_on = {"declaration": digest}
        others = range(1, len(nodes)) if rank == 0 else [0]
        self.peers = {number: Peer(number, nodes[number]) for number in others}
        self.me = f"rank {rank} ({nodes[rank]})"
        self.phase, self.why, self.epoch, self.end = PREPARING, "", "", End()
        self.faults: dict[str, str] = {}
        self.restarts: list[tuple[float, str]] = []
        self.number, self.count, self.since = 0, 0, 0.0
        self.runs: dict[int, str] = {}
        self.served = self.alive = 0.0
        self.failures = 0
        self.still: float | None = None
        self.states = ""

    # What this rank's launcher tells.

    def prepared(self, **stands_on: str) -> None:
        """Its engine could be started now, on what is named."""
        self.phase = WAITING
        self.stands_on.update(stands_on)

    def serving(self, now: float) -> None:
        """The head's engine completed what it was asked for the first time."""
        self.served = self.alive = now
        self.failures = 0

    def asked(self, alive: bool, failures: int, now: float) -> None:
        """Whether the head's engine showed a sign of life, and how many questions in a row it did not answer."""
        self.failures = failures
        self.alive = now if alive else self.alive

    def looked(self, still: "float | None", states: str) -> None:
        """For how long nothing has moved in this rank's container (seconds; None unknown), its processes by state."""
        self.still, self.states = still, states

    def failed(self, why: str, now: float) -> None:
        """This rank's engine ended by itself, or was ended for good reason."""
        if self.phase == RUNNING:
            self._end(ENGINE, f"{self.me}: {why}", now)

    def ended(self) -> None:
        """No container of this rank is left."""
        if self.phase != LEFT:
            self.phase = PREPARING

    def leave(self, cause: str, why: str) -> None:
        """This launcher ends."""
        self.phase, self.why = LEFT, why
        self.end = End(self.epoch, cause, f"{self.me}: {why}")
        self.epoch, self.served = "", 0.0

    # What comes from others, and the time.

    def heard(self, fields: "dict[str, Any]", now: float) -> None:
        """A message of this group's key. What is malformed or not for this rank is ignored."""
        peer = self.peers.get(fields.get("rank", -1))
        if peer is not None and fields.get("for") == self.rank and fields.get("road") in self.roads:
            peer.takes(fields, self.run, now)

    def tick(self, now: float) -> None:
        """Start or end, if it is time."""
        if self.phase == WAITING:
            why = self._missing(now)
            if not why:
                self._open(now)
            elif why != self.why:
                self.why = why
        elif self.phase == RUNNING:
            broken = self._broken(now) or (self._hung(now) if self.rank == 0 and self.served else None)
            if broken is not None:
                self._end(*broken, now)

    def messages(self, rank: int, road: str, now: float) -> "list[dict[str, object]]":
        """What is to be sent to a rank: to the run that is known and to one that has just been met."""
        peer = self.peers[rank]
        self.number += 1
        said = {
            "rank": self.rank,
            "for": rank,
            "run": self.run,
            "number": self.number,
            "road": road,
            "stands_on": self.stands_on,
            "phase": self.phase,
            "epoch": self.epoch,
            "end": [*self.end[:2], self.end.why[:LONGEST]],
            "why": self.why[:LONGEST],
            "hears": peer.hears(self.roads, now, self.limits.silence),
            "served": bool(self.served),
            "still": self.still,
            "states": self.states,
        }
        return [{**said, "to": run} for run in sorted({peer.run, peer.met} - {""}) or [""]]

    @property
    def spent(self) -> str:
        """Why the head starts no more; "" while it may."""
        if len(self.restarts) <= self.limits.restarts:
            return ""
        causes = ", ".join(cause for _, cause in self.restarts)
        told = f"{self.limits.restarts} restarts since this node was booted are enough"
        return f"{told} (ends: {causes}); the last: {self.end.why}"

    # How it decides.

    def _open(self, now: float) -> None:
        if self.rank == 0:
            self.count += 1
            self.epoch = f"{self.run[:8]}.{self.count}"
        else:
            self.epoch = self.peers[0].said["epoch"]
        self.runs = {number: peer.run for number, peer in self.peers.items()}
        self.since, self.served, self.still = now, 0.0, None
        self.phase, self.why = RUNNING, ""

    def _end(self, cause: str, why: str, now: float) -> None:
        self.end, self.epoch, self.served = End(self.epoch, cause, why), "", 0.0
        if self.rank == 0 and cause != STOP:
            self.restarts.append((now, cause))
        self.phase, self.why = ENDING, why

    def _missing(self, now: float) -> str:
        """What keeps the ranks from starting, in words."""
        if self.faults:
            return "; ".join(self.faults.values())
        why = "; ".join(filter(None, (self._absent(peer, now) for peer in self.peers.values())))
        if why or self.rank:
            return why
        hangs = [when for when, cause in self.restarts if cause == HANG]
        if len(hangs) > 1 and now < hangs[-2] + self.limits.cooldown:
            return f"it hung again within {self.limits.cooldown:g} s after a restart; no start before they are over"
        return self.spent

    def _absent(self, peer: Peer, now: float) -> str:
        """Why a rank is not ready to start with this one."""
        if peer.said.get("phase") == LEFT:  # its last message, however long ago: a launcher says nothing after it
            if peer.met not in (
                "",
                peer.run,
            ):  # a launcher that ended before it knew our run, so that its why is not ours
                return f"{peer.name} was started again and has not joined; the status of its unit says why"
            return f"{peer.name} has left: {peer.said['why']}"
        here = peer.hears(self.roads, now, self.limits.silence)
        if not here:
            return f"{peer.name} is not there"
        if deaf := [road for road in self.roads if road not in here or road not in peer.said["hears"]]:
            return f"{peer.name} is there, but not over {' and '.join(deaf)}"
        said, phase = peer.said, peer.said["phase"]
        if phase in (PREPARING, ENDING):
            return f"{peer.name} is {phase}"
        if other := [name for name, digest in self.stands_on.items() if said["stands_on"].get(name) != digest]:
            return f"{peer.name} is there with another {' and '.join(other)}"
        if self.rank == 0:
            return "" if phase == WAITING else f"{peer.name} is {phase}"
        if phase == RUNNING and said["epoch"] != self.end.epoch:
            return ""
        return str(said["why"]) or f"{peer.name} is {phase}"

    def _broken(self, now: float) -> "tuple[str, str] | None":
        """Cause and words of what ends this run."""
        for number, peer in self.peers.items():
            if peer.run != self.runs[number]:
                return ANEW, f"{peer.name}: its launcher was started anew"
            found = self._gone(peer, now) or self._other(peer, now)
            if found is not None:
                return found
        return None

    def _gone(self, peer: Peer, now: float) -> "tuple[str, str] | None":
        limit, first = self.limits.silence, self.roads[0]
        quiet = {road: now - max(peer.heard.get(road, self.since), self.since) for road in self.roads}
        if quiet[first] <= limit:
            return None
        if heard := [road for road, seconds in quiet.items() if seconds <= limit / 4]:
            return (
                CUT,
                f"the {first} to {peer.name} is cut: silent for {limit:g} s, and heard over {' and '.join(heard)}",
            )
        if min(quiet.values()) > limit:
            return LOST, f"{peer.name} is lost: silent over {' and '.join(self.roads)} for {limit:g} s"
        return None

    def _other(self, peer: Peer, now: float) -> "tuple[str, str] | None":
        """What a rank that is heard says of this run: it has ended, or left before; or it did not begin in time."""
        end = End(*peer.said["end"])
        if end.epoch == self.epoch or peer.said["phase"] == LEFT:
            return end.cause, end.why
        if peer.said["epoch"] != self.epoch and now - self.since > self.limits.silence:
            return ANEW, f"{peer.name} did not start within {self.limits.silence:g} s"
        return None

    def _hung(self, now: float) -> "tuple[str, str] | None":
        """A hang: no sign of life, questions without an answer, and no rank in which anything moves.

        What moves (weights that are read, kernels that are compiled) is work, and may take `longest`.
        """
        limits, quiet = self.limits, now - self.alive
        if not limits.patience or quiet < limits.patience or self.failures < FAILURES:
            return None
        if now - self.served < limits.uptime:
            return None
        still = {self.me: (self.still, self.states)}
        still |= {each.name: (each.said.get("still"), each.said.get("states", "")) for each in self.peers.values()}
        if any(seconds is None for seconds, _ in still.values()):
            return None
        if quiet < limits.longest and any(
            seconds < limits.patience for seconds, _ in still.values() if seconds is not None
        ):
            return None
        told = "; ".join(
            f"{name} still for {seconds:.0f} s, processes {states}" for name, (seconds, states) in still.items()
        )
        return HANG, f"no sign of life for {quiet:.0f} s, {self.failures} questions without an answer: {told}"
