"""How fast content comes: which connection is worth replacing by another, and whether the whole fetch stands still.

It must not know what is fetched. Times are monotonic seconds, rates bytes a second.
"""

import threading

SLOWEST = 1024
"""The rate under which a connection counts as silent."""
FLOOR = 64 << 10
"""The rate under which another connection is tried, whatever the others bring."""
SHARE = 8
"""So many times slower than its share of the best rate seen may a connection be."""
LONGEST_LOOK = 60.0
CRAWL = 8 << 10
"""The rate of all connections together under which the fetch is given up."""


class Pace:
    """What all connections of one fetch have shown; safe for several threads."""

    def __init__(self, connections: int, now: float) -> None:
        self._connections = max(1, connections)
        self._lock = threading.Lock()
        self._best = 0.0
        self._since, self._arrived, self._at_since = now, 0, 0

    def arrived(self, count: int) -> None:
        """So many bytes came, on whatever connection."""
        with self._lock:
            self._arrived += count

    def excuse(self, now: float) -> None:
        """Nothing can come at this time: the source waits for it itself."""
        with self._lock:
            self._since, self._at_since = now, self._arrived

    def slow(self, rate: float) -> bool:
        """Whether a connection that brought this rate is worth replacing."""
        with self._lock:
            self._best = max(self._best, rate)
            return rate < max(FLOOR, self._best / (SHARE * self._connections))

    def crawling(self, now: float, seconds: float) -> float | None:
        """The rate of all together where it was below CRAWL over the last `seconds`; None where it was not."""
        with self._lock:
            if now - self._since < seconds:
                return None
            rate = (self._arrived - self._at_since) / (now - self._since)
            self._since, self._at_since = now, self._arrived
        return rate if rate < CRAWL else None


class Watch:
    """One connection while it is read. `look` are the seconds over which its rate is an average."""

    def __init__(self, pace: Pace, stall: float, look: float, now: float) -> None:
        self._pace, self._stall, self._look = pace, stall, look
        self._looked = self._stalled = now
        self._count = self._at_look = self._at_stall = 0

    def add(self, count: int, now: float) -> str:
        """So many bytes more: "" where that is well, else `silent` or `slow`."""
        self._count += count
        self._pace.arrived(count)
        if now - self._stalled >= self._stall:
            if self._count - self._at_stall < SLOWEST * (now - self._stalled):
                return "silent"
            self._stalled, self._at_stall = now, self._count
        if now - self._looked >= self._look:
            rate = (self._count - self._at_look) / (now - self._looked)
            self._looked, self._at_look = now, self._count
            return "slow" if self._pace.slow(rate) else ""
        return ""
