"""What a link should carry, and the verdict on what it did. Pure.

A function of a Spark's port carries about 100 Gb/s, both of a port about 196 (97.3 by RDMA alone: eugr NETWORKING.md).
A degraded ConnectX-7 carries 8 to 25 Gb/s while speed, PCIe and counters look right (dgx-spark-playbooks #108).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["good", "low", "degraded"]
FUNCTION = 100.0
"""Gb/s that one function carries."""
DEGRADED, LOW = 0.25, 0.85
BUSY = 0.7
"""Processors that a side takes from which on it may be what bounds TCP: its streams share one interpreter."""


SHARED, HEADERS = 0.1, 0.15
"""Gb/s of others' that explain so little, as a part of what the link should carry; and what headers and what is sent
before the measurement and after it add to its own at most."""


def others(passed: Sequence[tuple[Sequence[int], Sequence[int]]], gbits: float, seconds: float) -> float:
    """Gb/s that others sent over links that carried `gbits` of the measurement for so many seconds.

    `passed`: the bytes of each link before and after it, by driver. The one that counted most is taken, since RDMA's
    traffic may be counted with Ethernet's or apart.
    """
    counts = [[after - before for before, after in zip(*each, strict=True)] for each in passed]
    most = max((sum(each) for each in zip(*counts, strict=True)), default=0)
    return max(0.0, most * 8e-9 / seconds - gbits * (1 + HEADERS))


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The counters that went up, and by how much. One that fell was set back by its driver, and says nothing."""
    return {name: value - before[name] for name, value in after.items() if name in before and value > before[name]}


def expected(speed_mbps: int | None, links: int) -> float | None:
    """Gb/s of so many twins of one port whose interfaces report the port's speed; None where they report none."""
    return min(speed_mbps / 1000, FUNCTION * links) if speed_mbps else None


def shared(foreign: float, wanted: float | None) -> bool:
    """Whether others' traffic explains that a link carried little."""
    return wanted is not None and foreign > SHARED * wanted


def verdict(gbits: float, wanted: float | None, method: str, busy: float = 0.0, foreign: float = 0.0) -> Verdict | None:
    """`degraded` below a quarter; `low` below 85 percent by RDMA. TCP is bounded by processors too: it is never low.

    None: not known, since others sent much (`foreign`, Gb/s) meanwhile, or the processors of a side were `busy` (in
    processors) while TCP carried so little.
    """
    if wanted is None:
        return "good"
    if gbits < DEGRADED * wanted:
        return "degraded" if busy < BUSY and not shared(foreign, wanted) else None
    if method == "rdma" and gbits < LOW * wanted:
        return None if shared(foreign, wanted) else "low"
    return "good"
