"""This rank's part in its group: messages over each road, the barrier, and what is told to systemd and kept.

A road is a network: UDP between the nodes' addresses on it, at the number of the service's port. Each message goes to
each peer over each road once a second, from this node's address on that road, so that a road that is down is silent.
"""

import contextlib
import errno
import json
import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sparkops.programs.launch.group import (
    ENDING,
    LEFT,
    PREPARING,
    RUNNING,
    STOP,
    WAITING,
    Group,
    Limits,
    opened,
    sealed,
)
from sparkops.programs.launch.systemd import WRONG_SPEC, Failed, Systemd, say

BEAT = 1.0
"""Seconds between two messages."""
EXTENSION = 30
"""Seconds that systemd waits for the next message of a launcher that waits for others."""
LOOK = 5.0
"""Seconds between two looks at what a waiting rank would start from."""
PACKET = 4096
COMPLAINT = 60.0
"""Seconds between two lines about foreign messages."""


class GroupEnded(Failed):
    """The run of all ranks is over; the launcher ends its container and waits for the next one."""


def _file() -> str:
    """Which file of this program is there, "" for none; another one comes by a rename."""
    with contextlib.suppress(OSError):
        status = os.stat(__file__)
        return f"{status.st_ino} {status.st_mtime_ns}"
    return ""


class Ranks:
    """One rank's group, in a thread of its own. `on_end` is called once a run is over."""

    def __init__(self, spec: "dict[str, Any]", systemd: Systemd, on_end: "Callable[[], None]") -> None:
        about = spec["group"]
        self.systemd, self.on_end, self.port = systemd, on_end, int(spec["port"])
        self.ranks: list[dict[str, Any]] = about["ranks"]
        self.rank = int(spec["rank"])
        self.key_path, self.record = about["key"], about["record"]
        self.key = b""
        limits = Limits(
            silence=about["heartbeat_seconds"],
            uptime=about["minimum_uptime_seconds"],
            patience=systemd.watchdog,
            longest=spec["timeouts"]["first_boot_seconds"],
            cooldown=about["hang_cooldown_seconds"],
            restarts=about["restarts_per_boot"],
        )
        nodes = [each["node"] for each in self.ranks]
        roads = list(self.ranks[0]["roads"])
        self.group = Group(self.rank, nodes, roads, about["digest"], secrets.token_hex(16), limits)
        self.group.restarts = self._former()
        self.sockets: dict[str, socket.socket] = {}
        self.lock = threading.RLock()
        self.told: tuple[str, ...] = ()
        self.memory = ""
        self.ready = False
        self.foreign, self.complained = 0, -COMPLAINT
        self.file = _file()

    def start(self) -> None:
        """Begin to speak and to listen. Raises Failed where there is no key."""
        try:
            self._read_key()
        except OSError as error:
            raise Failed(WRONG_SPEC, f"the group's key can't be read: {error}") from None
        threading.Thread(target=self._run, daemon=True).start()

    def hold(self, stopping: threading.Event, stands_on: "Callable[[], dict[str, str]]") -> None:
        """Wait until all ranks start, without end. Raises Failed where there have been restarts enough.

        `stands_on` finds out what is there to start from, which may change meanwhile. So may the launcher: the one that
        is there now takes over, as it has to understand those of the others.
        """
        due = 0.0
        while not stopping.is_set():
            if time.monotonic() >= due:
                if _file() not in ("", self.file):
                    say("there is another launcher now; it takes over")
                    os.execv(sys.executable, sys.orig_argv)
                found, due = stands_on(), time.monotonic() + LOOK
                with self.lock:
                    if self.group.phase in (PREPARING, WAITING):
                        self.group.prepared(**found)
            if self.group.phase != WAITING:
                return
            if self.group.spent:
                raise Failed(WRONG_SPEC, self.group.spent)
            if self.group.why:
                self.systemd.phase(f"waiting for the other ranks: {self.group.why}")
            stopping.wait(BEAT / 4)

    def check(self) -> None:
        """Raises GroupEnded when the run of all ranks is over."""
        if self.group.phase == ENDING:
            raise GroupEnded(0, self.group.why)

    def ended(self, error: Failed) -> bool:
        """This rank's container has ended by `error`; whether the launcher goes on and waits for the next run."""
        with self.lock:
            if error.status == WRONG_SPEC or self.group.phase not in (RUNNING, ENDING):
                return False
            self.group.failed(str(error), time.monotonic())
        self._beat()
        if self.ready:
            self.systemd.tell(RELOADING=1)
            self.ready = False
        with self.lock:
            self.group.ended()
        return True

    def served(self) -> None:
        """All ranks serve."""
        self.ready = True
        with self.lock:
            self.group.serving(time.monotonic())

    def looked(self, alive: bool, failures: int, still: "float | None", states: str) -> None:
        """What is seen of this rank's engine: whether the head's API lives, and whether anything moves in it."""
        with self.lock:
            self.group.looked(still, states)
            if self.rank == 0:
                self.group.asked(alive, failures, time.monotonic())

    @property
    def head_serves(self) -> bool:
        return bool(self.group.peers[0].said.get("served"))

    def leave(self, cause: str = STOP, why: str = "it was asked to stop") -> None:
        """Tell the others that this launcher ends."""
        with self.lock:
            if self.group.phase != LEFT:
                self.group.leave(cause, why)
        self._beat()

    def _run(self) -> None:
        due = 0.0
        while True:
            wait = max(0.0, due - time.monotonic())
            readable, _, _ = select.select(list(self.sockets.values()), [], [], wait)
            for each in readable:
                self._take(each)
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT
                self._open()
                self._beat()

    def _open(self) -> None:
        """Open the roads that are not open yet: an address may come later than the launcher."""
        if self.group.phase != RUNNING:
            with contextlib.suppress(OSError):
                self._read_key()
        for road, address in self.ranks[self.rank]["roads"].items():
            if road in self.sockets:
                continue
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            link = socket.socket(family, socket.SOCK_DGRAM)
            link.setblocking(False)
            try:
                link.bind((address, self.port))
            except OSError as error:
                link.close()
                taken = error.errno == errno.EADDRINUSE
                why = f"UDP port {self.port} is taken there" if taken else str(error.strerror).lower()
                self.group.faults[road] = f"{road}: {address} can't be used: {why}"
            else:
                self.sockets[road] = link
                self.group.faults.pop(road, None)

    def _read_key(self) -> None:
        with open(self.key_path, "rb") as file:
            self.key = file.read()

    def _take(self, link: socket.socket) -> None:
        try:
            packet, sender = link.recvfrom(PACKET)
        except OSError:  # also what an earlier message of ours came back as: nobody listens there yet
            return
        try:
            fields = opened(self.key, packet)
            if fields is not None:
                with self.lock:
                    self.group.heard(fields, time.monotonic())
                return
        except (ValueError, KeyError, TypeError):
            pass
        self.foreign += 1
        if time.monotonic() - self.complained >= COMPLAINT:
            self.complained = time.monotonic()
            what = "a message of another key, or of a launcher of another version,"
            say(f"{what} came from {sender[0]} ({self.foreign} so far); ignored")

    def _beat(self) -> None:
        """Let time pass, tell the peers and systemd, and say what is new."""
        now = time.monotonic()
        with self.lock:
            self.group.tick(now)
            packets = [
                (road, (self.ranks[rank]["roads"][road], self.port), sealed(self.key, fields))
                for rank in self.group.peers
                for road in self.group.roads
                for fields in self.group.messages(rank, road, now)
            ]
            told = (self.group.phase, self.group.why, self.group.epoch)
            news, self.told = told != self.told, told
        for road, address, packet in packets:
            with contextlib.suppress(OSError, KeyError):
                self.sockets[road].sendto(packet, address)
        if self.group.phase != LEFT:
            self.systemd.tell(WATCHDOG=1, EXTEND_TIMEOUT_USEC=EXTENSION * 1000000)
        if news:
            self._tell()

    def _tell(self) -> None:
        phase, why, epoch = self.told
        say(f"group: {phase}" + (f", run {epoch}" if epoch else "") + (f": {why}" if why else ""))
        self.keep()
        if phase == ENDING:
            self.on_end()

    def keep(self) -> None:
        """Write down how it stands, for whoever asks and for the next launcher of this boot."""
        group = self.group
        begins_anew = group.phase == LEFT and (group.end.cause == STOP or group.spent)
        restarts = [] if begins_anew else group.restarts
        told = {"phase": group.phase, "cause": group.end.cause, "why": group.why, "epoch": group.epoch}
        text = json.dumps({**told, "at": round(time.time()), "memory": self.memory, "restarts": restarts})
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self.record), mode=0o755, exist_ok=True)
            with open(self.record + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(self.record + ".new", self.record)

    def _former(self) -> "list[tuple[float, str]]":
        """The restarts that an earlier launcher of this boot noted."""
        try:
            with open(self.record, encoding="utf-8") as file:
                return [(float(when), str(cause)) for when, cause in json.load(file)["restarts"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []
