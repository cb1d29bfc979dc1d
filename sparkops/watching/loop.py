"""The rounds of a watcher: look, tell what came and went, keep a sign of life, wait.

It must not know how a report is shown, nor what signals are.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparkops.core.errors import ConnectionFailed, SparkopsError
from sparkops.core.report import Report
from sparkops.core.wording import Message
from sparkops.library import Cluster
from sparkops.reconcile.fleet import Fleet
from sparkops.watching.edges import Edges, advanced, message
from sparkops.watching.receivers import COMMAND_SECONDS, Deliver, Receiver
from sparkops.watching.state import Beat, StateFile, write_metrics

RESTING = 3600.0
"""Seconds for which an unreachable node is left alone at most."""
TICK = 0.5
"""Seconds after which an order to read the inventory again is seen."""
ENDING = COMMAND_SECONDS + 5.0
"""Seconds for receivers to take what waits when the watcher ends: a command that runs comes to its end."""
NOT_TRIED = "node-not-tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Seconds from the start of a round to that of the next, plus up to `jitter`; and how long a finding has to be
    there, or gone, before it is told."""

    interval: float
    jitter: float = 0.0
    hold: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What somebody else may ask of a watcher at any time: to end after its round, to read the inventory again."""

    stop: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """For so long, or until there is an order."""
        until = time.monotonic() + seconds
        while not self.reload.is_set() and (left := until - time.monotonic()) > 0:
            if self.stop.wait(min(TICK, left)):
                return


class Resting:
    """How many rounds a node that does not answer is left alone: none after the first failure, then 1, 3, 7, …"""

    def __init__(self, interval: float) -> None:
        self._most = int(RESTING / interval)
        self._failures: dict[str, tuple[int, int, Message]] = {}

    def now(self) -> Mapping[str, SparkopsError]:
        """The nodes that are not tried in this round, each with an error that says so."""
        found = {}
        for node, (failures, rounds, why) in self._failures.items():
            if rounds > 0:
                self._failures[node] = (failures, rounds - 1, why)
                found[node] = ConnectionFailed.of(NOT_TRIED, where=node, failures=failures, reason=why)
        return found

    def note(self, report: Report) -> None:
        """After a round: who answered is tried again in each."""
        silent = report.plan.unreachable
        for node in self._failures.keys() - silent.keys():
            del self._failures[node]
        for node, why in silent.items():
            if why.id != NOT_TRIED:
                failures = self._failures.get(node, (0, 0, why))[0] + 1
                self._failures[node] = (failures, min(2 ** min(failures - 1, 30) - 1, self._most), why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who hears of a watcher: `show` gets each report and the message of its changes, if there are any; `say` what
    goes wrong; `receivers` are given the messages, by their names. `metrics` is a file."""

    show: Callable[[Report, dict[str, object] | None], None]
    say: Callable[[Message], None]
    receivers: Mapping[str, Deliver] = field(default_factory=dict)
    metrics: Path | None = None


class Watcher:
    """Rounds over the cluster that `load` gives, until it is told to stop."""

    def __init__(self, load: Callable[[], Cluster], rhythm: Rhythm, orders: Orders, audience: Audience) -> None:
        self._load, self._rhythm, self._orders, self._audience = load, rhythm, orders, audience
        self._edges = Edges()
        self._receivers: Sequence[Receiver] = ()

    def run(self) -> None:
        """Watch. Raises what keeps it from beginning: InventoryError, LockBusy, StateFolderUnusable."""
        cluster, fleet = self._loaded()
        self._file = StateFile(cluster)
        self._edges, waiting = self._file.open()
        try:
            self._beat = Beat(cluster=cluster.inventory.cluster, interval=self._rhythm.interval, pid=os.getpid())
            self._receivers = [
                Receiver(name, deliver, self._audience.say, waiting.get(name, ()))
                for name, deliver in self._audience.receivers.items()
            ]
            while not self._orders.stop.is_set():
                with fleet:
                    again = self._rounds(cluster, fleet)
                cluster, fleet = again or (cluster, fleet)
        finally:
            for patience in (0.0, ENDING):  # all are told before one is waited for
                for each in self._receivers:
                    each.stop(patience)
            self._keep()
            self._file.close()

    def _loaded(self) -> tuple[Cluster, Fleet]:
        """The cluster and its connections, none of them open: faults of roles and secrets are known before a round."""
        cluster = self._load()
        return cluster, cluster.fleet()

    def _rounds(self, cluster: Cluster, fleet: Fleet) -> tuple[Cluster, Fleet] | None:
        """Rounds over one fleet; returns with what to go on, where there was an order for that."""
        resting = Resting(self._rhythm.interval)
        while not self._orders.stop.is_set():
            started = time.monotonic()
            self._round(cluster, fleet, resting)
            pause = self._rhythm.interval + random.uniform(0.0, self._rhythm.jitter)
            self._orders.wait(pause - (time.monotonic() - started))
            if self._orders.reload.is_set():
                self._orders.reload.clear()
                again = self._reloaded()
                if again is not None:
                    return again
        return None

    def _reloaded(self) -> tuple[Cluster, Fleet] | None:
        """The inventory as it is now; None, and what was read before stays, where it can't be read or understood."""
        try:
            cluster, fleet = self._loaded()
        except (SparkopsError, OSError) as error:
            self._audience.say(Message.of("watch-not-reloaded", reason=str(error)))
            self._beat = dataclasses.replace(self._beat, reloaded=False)
            self._keep()
            return None
        self._beat = dataclasses.replace(self._beat, cluster=cluster.inventory.cluster, reloaded=True)
        return cluster, fleet

    def _round(self, cluster: Cluster, fleet: Fleet, resting: Resting) -> None:
        fleet.renew(resting.now())
        try:
            report = cluster.drift(fleet=fleet)
        except SparkopsError as error:
            self._audience.say(Message.of("watch-round-failed", reason=str(error)))
            return
        resting.note(report)
        self._edges, changes = advanced(self._edges, report, self._rhythm.hold)
        self._beat = self._beat.after(report)
        told = message(report, changes) if changes else None
        if told is not None:
            for each in self._receivers:
                each.put(told)
        self._keep()
        self._audience.show(report, told)

    def _keep(self) -> None:
        waiting = {each.name: each.waiting() for each in self._receivers}
        try:
            self._file.write(self._beat, self._edges, waiting)
            if self._audience.metrics is not None:
                write_metrics(self._audience.metrics, self._beat, waiting)
        except OSError as error:
            reason = f"{error.filename or self._file.path}: {error.strerror or error}"
            self._audience.say(Message.of("watch-state-not-written", reason=reason))
