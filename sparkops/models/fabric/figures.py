"""What a link should carry, and the verdict on what it did. Pure.

A function of a Spark's port carries about 100 Gb/s, both of a port about 196 (97.3 by RDMA alone: eugr NETWORKING.md).
A degraded ConnectX-7 carries 8 to 25 Gb/s while speed, PCIe and counters look right (dgx-spark-playbooks #108).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["good", "low", "degraded"]
FUNCTION = 100.0
"""Gb/s that one function carries."""
DEGRADED, LOW = 0.25, 0.85
BUSY = 0.7
"""Processors that a side takes from which on it may be what bounds TCP: its streams share one interpreter."""


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """The counters that went up, and by how much. One that fell was set back by its driver, and says nothing."""
    return {name: value - before[name] for name, value in after.items() if name in before and value > before[name]}


def expected(speed_mbps: int | None, links: int) -> float | None:
    """Gb/s of so many twins of one port whose interfaces report the port's speed; None where they report none."""
    return min(speed_mbps / 1000, FUNCTION * links) if speed_mbps else None


def verdict(gbits: float, wanted: float | None, method: str, busy: float = 0.0) -> Verdict | None:
    """`degraded` below a quarter; `low` below 85 percent by RDMA. TCP is bounded by processors too: it is never low.

    None: not known, since the processors of a side were `busy` (in processors) while TCP carried so little.
    """
    if wanted is None:
        return "good"
    if gbits < DEGRADED * wanted:
        return "degraded" if busy < BUSY else None
    return "low" if method == "rdma" and gbits < LOW * wanted else "good"
