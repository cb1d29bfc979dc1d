"""How nodes and services are right now, in one call per node: what a person wants on one screen.

Health is a real completion. What could not be found out is None with its reason, never a guess.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sparkops.core.messages import UNKNOWN
from sparkops.core.messages import reason as as_reason
from sparkops.core.states import Unknown, lookup
from sparkops.core.wording import Message
from sparkops.inventory.served import places
from sparkops.models.engine import Engine
from sparkops.nodes.session import Session, returned
from sparkops.operate.connect import Context, reach
from sparkops.operate.measuring.figures import figures, number
from sparkops.operate.services import Rank, ranks
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import FACTS, LIMIT, MARGIN
from sparkops.reconcile.targets import urls
from sparkops.resources.resource import unpack
from sparkops.resources.unit import Unit

Value = TypeVar("Value")
GROUPS = ("memory", "gpu", "cpu", "uptime")
READINGS = {
    "gpu_power_watts": "gpu.power_watts",
    "sm_clock_mhz": "gpu.sm_clock_mhz",
    "sm_clock_max_mhz": "gpu.sm_clock_max_mhz",
}
"""What moves on a node, by the paths of its facts. The power is the GPU's own, about half of the whole node's."""
FIGURES = "figures"
SINCE = {
    "active": "ActiveEnterTimestampMonotonic",
    "activating": "InactiveExitTimestampMonotonic",
    "inactive": "InactiveEnterTimestampMonotonic",
    "failed": "InactiveEnterTimestampMonotonic",
}
"""Which of systemd's clocks (microseconds of CLOCK_MONOTONIC) says since when a unit is as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node. `reason` says what kept it from answering; sizes are bytes, times seconds since the epoch.

    `load` is the one-minute average; `jobs` are the node jobs as the worker lists them; `holder` is who holds its lock.
    `readings` are those of READINGS.
    """

    name: str
    reason: Message | None = None
    memory_total: int | None = None
    memory_available: int | None = None
    gpu: str | None = None
    driver: str | None = None
    load: float | None = None
    booted: float | None = None
    jobs: tuple[Mapping[str, object], ...] = ()
    holder: Mapping[str, object] | None = None
    readings: Mapping[str, float | Unknown] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankStatus:
    """A service on one node. `state` is systemd's word, "" unknown; `phase` the launcher's own; `answers` the probe's.

    `seconds` is how long the completion took, `reason` what is wrong. `hang` is the file on the node that describes the
    last hang of the engine, `hung` when that was. `figures` are those of its engine, asked at its head
    (operate/measuring/figures.py). `start` are the seconds to the open port and to the first token of the last start;
    `token` is when the engine was last seen to generate one.
    """

    service: str
    node: str
    unit: str
    state: str = ""
    since: float | None = None
    phase: str = ""
    restarts: int | None = None
    answers: bool | None = None
    seconds: float | None = None
    reason: Message | None = None
    model: str = ""
    hang: str = ""
    hung: float | None = None
    rank: int = 0
    figures: Mapping[str, float | Unknown] = field(default_factory=dict)
    start: tuple[float, float] | None = None
    token: float | None = None

    @property
    def stopped(self) -> bool:
        """Somebody stopped it, or nobody started it since the node was booted."""
        return self.state.startswith("inactive")

    @property
    def serving(self) -> bool:
        """It runs, and nothing that was asked of it failed."""
        return self.state.startswith("active") and self.answers is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All of it, taken at `time`. `endpoints` maps services to URLs."""

    cluster: str
    time: float
    nodes: tuple[NodeStatus, ...]
    ranks: tuple[RankStatus, ...]
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """2 where a service does not serve, else 3 where something is not known, else 0."""
        served = serve(self.ranks)
        if served is False:
            return 2
        return 3 if served is None or any(node.reason for node in self.nodes) else 0


def serve(ranks: Sequence[RankStatus]) -> bool | None:
    """Whether all of these serve; None where that is not known of one, and of none that it does not."""
    known = [rank for rank in ranks if rank.state]
    if any(not rank.serving for rank in known):
        return False
    unasked = any(rank.answers is None and rank.reason for rank in known)
    return None if unasked or len(known) < len(ranks) else True


def status(context: Context, nodes: Sequence[str]) -> Status:
    """Ask these nodes, and every rank of a service on them. Raises InventoryError."""
    with contextlib.closing(statuses(context, nodes)) as found:
        return next(found)


def statuses(context: Context, nodes: Sequence[str]) -> Generator[Status, None, None]:
    """One status after the other, over the same connections for as long as no node is lost. Raises InventoryError."""
    declared = [rank for rank in ranks(context.inventory) if rank.node in nodes]
    engines = {(place.service.name, place.node): place.engine for place in places(context.inventory)}
    while True:
        with reach(context, nodes, {FACTS, "unit", FIGURES}) as fleet:
            while not fleet.failed:
                yield _status(context, nodes, fleet, declared, engines)


def _status(
    context: Context,
    nodes: Sequence[str],
    fleet: Fleet,
    declared: Sequence[Rank],
    engines: Mapping[tuple[str, str], Engine | None],
) -> Status:
    def ask(node: str, session: Session) -> tuple[NodeStatus, list[RankStatus]]:
        mine = [rank for rank in declared if rank.node == node]
        looking = session.stream("observe", {"asks": _asks(mine), "limit": LIMIT}, timeout=LIMIT + MARGIN)
        working = session.stream("jobs.list", timeout=LIMIT)
        holding = session.stream("lock.holder", {"state_dir": fleet.targets[node].state_dir}, timeout=LIMIT)
        answer = returned(looking)
        now = time.time()  # the node's own clock may be another: all times are told by this machine's
        running, holder = returned(working), returned(holding)
        answers, boot, ahead = answer["answers"], now - float(answer["monotonic"]), float(answer["clock"]) - now
        told = [_rank(rank, answers, boot, engines.get((rank.service, node)), ahead) for rank in mine]
        return _node(node, answers, running, holder, ahead), told

    answers, silent = fleet.each(nodes, ask)
    found_nodes, found_ranks = [], []
    for node in nodes:
        if error := silent.get(node):
            found_nodes.append(NodeStatus(name=node, reason=error.message))
            found_ranks += [_silent(rank, error.message) for rank in declared if rank.node == node]
        else:
            found_nodes.append(answers[node][0])
            found_ranks += answers[node][1]
    order = list(context.inventory.services)
    return Status(
        cluster=context.inventory.cluster,
        time=time.time(),
        nodes=tuple(found_nodes),
        ranks=tuple(sorted(found_ranks, key=lambda rank: order.index(rank.service))),
        endpoints=urls(context.inventory, tuple(context.inventory.nodes)),
    )


def _asks(mine: Sequence[Rank]) -> list[list[object]]:
    asks: list[list[object]] = [[FACTS, FACTS, {"groups": list(GROUPS)}]]
    for rank in mine:
        properties = dict.fromkeys(["StatusText", *SINCE.values()], "")
        bare = Unit(
            node=rank.node,
            name=rank.unit.name,
            properties=properties,
            service=rank.service,
            state_dir=rank.unit.state_dir,
        )
        asks.append([rank.unit.id, bare.kind, bare.ask()])
        if rank.probe is not None:
            asks.append([rank.probe.id, FIGURES, rank.probe.ask()])
    return asks


def _node(
    node: str, answers: Mapping[str, object], running: Sequence[object] | None, holder: object, ahead: float = 0.0
) -> NodeStatus:
    """`ahead` are the seconds by which the node's clock is ahead of this machine's."""
    facts = unpack(answers.get(FACTS) or {UNKNOWN: as_reason("not-answered")}) or {}

    def fact(path: str, type: type[Value]) -> Value | None:
        found = lookup(facts, path)
        return found if isinstance(found, type) else None

    load = fact("cpu.load", list)
    return NodeStatus(
        name=node,
        memory_total=fact("memory.total_bytes", int),
        memory_available=fact("memory.available_bytes", int),
        gpu=fact("gpu.name", str),
        driver=fact("gpu.driver_version", str),
        load=number(load[0]) if load else None,
        booted=_by_our_clock(fact("uptime.pid1_started", float), ahead),
        jobs=tuple(each for each in running or () if isinstance(each, Mapping)),
        holder=holder if isinstance(holder, Mapping) else None,
        readings={name: _reading(facts, path) for name, path in READINGS.items()},
    )


def _reading(facts: Mapping[str, object] | Unknown, path: str) -> float | Unknown:
    found = facts if isinstance(facts, Unknown) else lookup(facts, path)
    if isinstance(found, Unknown):
        return found
    value = number(found)
    return Unknown.of("reading-not-available", fact=path) if value is None else value


def _by_our_clock(value: object, ahead: float) -> float | None:
    """A time that a node told."""
    at = number(value)
    return None if at is None else at - ahead


def _rank(
    rank: Rank, answers: Mapping[str, object], boot: float, engine: Engine | None = None, ahead: float = 0.0
) -> RankStatus:
    """`boot` is when the node's monotonic clock began, by this machine's clock; `ahead` as of `_node`."""
    missing = {UNKNOWN: as_reason("not-answered")}
    state = unpack(answers.get(rank.unit.id) or missing)
    if isinstance(state, Unknown):
        return _silent(rank, state)
    state = state or {}
    told = unpack(answers.get(rank.probe.id) or missing) if rank.probe is not None else None
    health = unpack(told.get("health") or missing) if isinstance(told, Mapping) else told
    counted = unpack(told.get("counted") or missing) if isinstance(told, Mapping) else told
    asked = health if isinstance(health, Mapping) else {}
    exists = bool(state.get("exists"))
    word = str(state.get("state") or "inactive").partition(" ")[0]
    clock = str(state.get(f"property.{SINCE.get(word, SINCE['active'])}") or "0")
    text = str(asked.get("why") or "")
    why = Message.of("endpoint-not-serving", text=text) if text else None
    if not exists:
        why = Message.of("unit-absent", unit=rank.unit.name)
    elif state.get("masked"):
        why = Message.of("unit-masked", unit=rank.unit.name)
    elif word == "inactive":
        why = Message.of("unit-stopped", unit=rank.unit.name, service=rank.service)
    elif isinstance(health, Unknown):
        why = health
    hang = state.get("last_hang")
    hang = hang if isinstance(hang, Mapping) else {}
    start = state.get("last_start")
    start = start if isinstance(start, Mapping) else {}
    port, token = number(start.get("port_seconds")), number(start.get("token_seconds"))
    return RankStatus(
        service=rank.service,
        node=rank.node,
        unit=rank.unit.name,
        state=str(state.get("state") or "") if exists else "absent",
        since=boot + int(clock) / 1e6 if clock.isdecimal() and int(clock) else None,
        phase="" if word == "inactive" else str(state.get("property.StatusText") or ""),
        restarts=state.get("restarts"),
        answers=asked.get("answers") if exists else None,
        seconds=asked.get("seconds"),
        reason=why,
        model=rank.model,
        hang=str(hang.get("path") or ""),
        hung=_by_our_clock(hang.get("at"), ahead),
        rank=rank.number,
        figures=figures(counted if rank.probe is not None else Unknown.of("metrics-on-head"), engine),
        start=None if port is None or token is None else (port, token),
        token=_by_our_clock(state.get("last_token"), ahead),
    )


def _silent(rank: Rank, reason: Message) -> RankStatus:
    return RankStatus(
        service=rank.service,
        node=rank.node,
        unit=rank.unit.name,
        reason=reason,
        model=rank.model,
        rank=rank.number,
        figures=figures(Unknown(reason.id, reason.args), None),
    )
