"""The journal entries of a service's units; the launcher copies the engine's output into them.

Entries of several nodes are put in the order of the stamps that each node's journal gave them. How far the nodes'
clocks are apart is measured and told; nothing is corrected by it, for it says nothing about earlier entries.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from sparkops.core.errors import AuthenticationFailed, ConnectionFailed, HostKeyError, SparkopsError
from sparkops.core.request_messages import JournalRequest
from sparkops.nodes.passwords import LoginRefused
from sparkops.nodes.session import Channel, Session
from sparkops.operate.connect import Context, reach
from sparkops.operate.services import Rank
from sparkops.operate.streams import Ended, split
from sparkops.operate.streams import lines as output

HOLD = 1.0
"""Seconds that an entry is held back for earlier ones of other nodes, while they are followed."""
FIRST = 10.0
"""Seconds within which all nodes have to be there before the first entries are shown without one of them."""
AGAIN = 2.0
"""Seconds before a lost node is tried again."""
AHEAD = 10_000
"""Entries that are buffered for a slow reader; the nodes wait meanwhile."""
POLL = 0.1
FINAL = (HostKeyError, LoginRefused)
"""What does not pass by itself; a node that is being booted refuses whom it let in before."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of a journal. `time` is seconds since the epoch by the node's clock; `priority` syslog's, 3 is error.

    `cursor` is the journal's own name of the place.
    """

    time: float
    node: str
    text: str
    priority: int = 6
    cursor: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Attached:
    """A node is listened to. Its clock is `ahead` seconds ahead of this machine's, give or take `error`."""

    node: str
    ahead: float
    error: float


@dataclass(frozen=True, slots=True)
class Lost:
    """A node is not listened to any more, and why; `over` says that it is not tried again."""

    node: str
    error: SparkopsError
    over: bool = False


Told = Callable[["Attached | Lost"], None]


def logs(context: Context, chosen: Sequence[Rank], *, lines: int, told: Told) -> Generator[Entry, None, None]:
    """The last `lines` entries of each rank in the order of their times."""
    asks = {rank.node: JournalRequest(unit=rank.unit.name, lines=lines) for rank in chosen}
    entries: dict[str, list[Entry]] = {node: [] for node in asks}
    with reach(context, asks, ["exec"]) as fleet:
        if len(asks) > 1:
            for found in fleet.each(asks, _attached)[0].values():
                told(found)
        for item in output(fleet, "exec.journal", asks, len(asks)):
            if isinstance(item, Ended):
                if item.error is not None:
                    told(Lost(item.node, item.error, over=True))
                continue
            entries[item.node] += filter(None, (parse(item.node, item.stream, line) for line in item.data.split(b"\n")))
    yield from heapq.merge(*entries.values())


def follow(context: Context, chosen: Sequence[Rank], *, lines: int, told: Told) -> Generator[Entry, None, None]:
    """The same, and what comes, until the iterator is closed or no node is listened to.

    A node that is lost is told, tried again, and goes on where it was. What comes more than HOLD seconds late of
    others is out of order.
    """
    inbox: queue.Queue[Entry | Attached | Lost] = queue.Queue(AHEAD)
    listeners = [_Listener(context, rank, lines, inbox) for rank in chosen]
    listening = {rank.node for rank in chosen}
    awaited, until = set(listening), time.monotonic() + FIRST
    held: list[tuple[Entry, float]] = []
    for each in listeners:
        threading.Thread(target=each.run, daemon=True).start()
    try:
        while listening or held or not inbox.empty():
            with contextlib.suppress(queue.Empty):
                item = inbox.get(timeout=POLL)
                if isinstance(item, Entry):
                    heapq.heappush(held, (item, time.monotonic()))
                else:
                    awaited.discard(item.node)
                    if isinstance(item, Lost) and item.over:
                        listening.discard(item.node)
                    told(item)
            now = time.monotonic()
            while held and (now >= until or not awaited) and (held[0][1] + HOLD <= now or not listening):
                yield heapq.heappop(held)[0]
    finally:
        for each in listeners:
            each.close()


class _Listener:
    """Follows the journal of one rank, again and again."""

    def __init__(self, context: Context, rank: Rank, lines: int, inbox: queue.Queue[Entry | Attached | Lost]) -> None:
        self.context, self.rank, self.inbox = context, rank, inbox
        self.ask: JournalRequest = {"unit": rank.unit.name, "lines": lines, "follow": True}
        self.stop = threading.Event()
        self.channel: Channel | None = None

    def close(self) -> None:
        self.stop.set()
        with contextlib.suppress(SparkopsError):
            if self.channel is not None:
                self.channel.close()

    def run(self) -> None:
        lost = ""
        while not self.stop.is_set():
            try:
                self._listen()
                lost = ""
            except ConnectionFailed as error:
                if isinstance(error, FINAL) or (isinstance(error, AuthenticationFailed) and self.channel is None):
                    return self.inbox.put(Lost(self.rank.node, error, over=True))
                if str(error) != lost:
                    self.inbox.put(Lost(self.rank.node, error))
                lost = str(error)
            except SparkopsError as error:
                return self.inbox.put(Lost(self.rank.node, error, over=True))
            self.stop.wait(AGAIN)
        return None

    def _listen(self) -> None:
        """Until journalctl ends or the node is lost. Raises SparkopsError."""
        node = self.rank.node
        with reach(self.context, [node], ["exec"]) as fleet:
            session = fleet.session(node)
            self.inbox.put(_attached(node, session))
            self.channel = session.channel("exec.journal", self.ask)
            for stream, data in split(self.channel):
                for entry in filter(None, (parse(node, stream, line) for line in data.split(b"\n"))):
                    if self.stop.is_set():
                        return
                    self.ask["after"] = entry.cursor or self.ask.get("after", "")
                    self.inbox.put(entry)


def _attached(node: str, session: Session) -> Attached:
    """How far the node's clock is ahead, by one question; its answer was on its way half of the time at most."""
    before = time.time()
    clock = float(session.call("observe", {"asks": [], "limit": 1.0}, timeout=10.0)["clock"])
    after = time.time()
    return Attached(node, clock - (before + after) / 2, (after - before) / 2)


def parse(node: str, stream: int, data: bytes) -> Entry | None:
    """An entry out of journalctl's JSON; its complaints, which stand on error output, as entries too.

    A message that is no UTF-8 is a list of bytes there, and null where it is too long to be kept.
    """
    text = data.decode(errors="replace")
    if stream != 1:
        return Entry(0.0, node, text, 4)
    try:
        found = json.loads(text)
        message = found.get("MESSAGE")
        if isinstance(message, list):
            message = bytes(message).decode(errors="replace")
        when, priority = int(found.get("__REALTIME_TIMESTAMP", 0)) / 1e6, int(found.get("PRIORITY", 6))
        cursor = str(found.get("__CURSOR") or "")
    except (ValueError, TypeError, AttributeError):
        return Entry(0.0, node, text, 4)
    if message is None:
        return None
    return Entry(when, node, message if isinstance(message, str) else "", priority, cursor)
