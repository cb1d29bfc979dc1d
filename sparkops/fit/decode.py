"""The most tokens per second that memory bandwidth allows: the bytes that one step must read, against 273 GB/s.

It must not know a budget. Communication between ranks and everything that computes are left out, so it is a ceiling.

Source: checkpoints.md e.1; a healthy recipe without speculation reaches 70 to 75 % of it (e.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparkops.models.geometry import Geometry
from sparkops.models.hybrid_cache import CacheLayout

BANDWIDTH = 273e9
"""Bytes per second of a Spark's memory, nominal (about 240e9 was measured: spark-world.md c.6)."""

CONTEXT = 1024
"""Tokens of context at which a ceiling is given (checkpoints.md e.2)."""

ACCEPTED: Mapping[int, float] = {1: 1.95, 2: 2.65}
"""Tokens that a step yields with so many drafted by the model's own prediction head, published (checkpoints.md e.2)."""

ONCE = ("attention", "linear_attention", "linear_small", "dense", "router", "shared_experts", "norms", "other")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step reads on one rank, in bytes, and how many tokens each of its streams gets of it."""

    streams: int
    base: float
    experts: float
    head: float
    state: float
    cache: float
    drafting: float
    tokens: float

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.base + self.experts + self.head + self.state + self.cache + self.drafting

    @property
    def tokens_per_second(self) -> float:
        """The ceiling, over all streams."""
        return self.streams * self.tokens * BANDWIDTH / self.bytes


def distinct(experts: int, each: int, positions: int) -> float:
    """How many times the experts of one token `positions` tokens read: expected distinct ones, chosen independently."""
    if not experts or not each:
        return 1.0
    return experts * (1 - (1 - each / experts) ** positions) / each


def step(
    geometry: Geometry,
    parts: Mapping[str, float],
    cache: CacheLayout,
    *,
    tensor_parallel: int = 1,
    streams: int = 1,
    drafted: int = 0,
    mtp: bool = False,
    drafter_bytes: float = 0.0,
    tokens: float = 1.0,
    context: int = CONTEXT,
) -> Step:
    """One step of `streams` requests with `drafted` tokens each. `cache` is a rank's, `parts` are over all ranks.

    The model's own head (`mtp`) drafts one token after the other; a drafter's `drafter_bytes` (of a rank) are read
    once.
    """
    positions = streams * (drafted + 1)
    ratio = geometry.experts_per_token / geometry.experts if geometry.experts else 0.0
    head = parts.get("head", parts.get("embedding", 0.0)) / tensor_parallel
    drafting = drafter_bytes + head if drafter_bytes else 0.0
    if mtp and drafted:
        routed = parts.get("mtp_experts", 0.0) * ratio * distinct(geometry.experts, geometry.experts_per_token, streams)
        drafting = drafted * ((parts.get("mtp", 0.0) + routed) / tensor_parallel + head)
    routed = parts.get("experts", 0.0) * ratio * distinct(geometry.experts, geometry.experts_per_token, positions)
    return Step(
        streams=streams,
        base=sum(parts.get(part, 0.0) for part in ONCE) / tensor_parallel,
        experts=routed / tensor_parallel,
        head=head,
        state=streams * 2.0 * cache.state_bytes_per_request,
        cache=streams * context * float(cache.kv_bytes_per_token or 0),
        drafting=drafting,
        tokens=tokens,
    )
