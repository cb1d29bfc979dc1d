"""The most tokens per second that memory bandwidth allows: the bytes that one step must read, against the device's.

It must not know a budget. Communication between ranks and everything that computes are left out, so it is a ceiling;
beside it stands the speed with what launches cost in each layer, which no bandwidth removes.

A healthy recipe without speculation reaches 70 to 75 % of the ceiling (albond README, Entrpi FINDINGS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.hybrid_cache import CacheLayout

CONTEXT = 1024
"""Tokens of context at which a ceiling is given."""

ACCEPTED: Mapping[int, float] = {1: 1.95, 2: 2.65}
"""Tokens that a step yields with so many drafted by the model's own prediction head, as albond published
them (95 % of the first token accepted, about 80 % of the second)."""

ONCE = ("attention", "linear_attention", "linear_small", "dense", "router", "shared_experts", "norms", "other")


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """What one step reads on one rank, in bytes, how many tokens each of its streams gets of it, at how many bytes a
    second, and the seconds that its launches take."""

    streams: int
    base: float
    experts: float
    head: float
    state: float
    cache: float
    drafting: float
    tokens: float
    bandwidth: float
    launches: float

    @property
    def bytes(self) -> float:
        """All of it."""
        return self.base + self.experts + self.head + self.state + self.cache + self.drafting

    @property
    def tokens_per_second(self) -> float:
        """The ceiling, over all streams."""
        return self.streams * self.tokens * self.bandwidth / self.bytes

    @property
    def launched_tokens_per_second(self) -> float:
        """The same, launches and reading one after the other."""
        return self.streams * self.tokens / (self.bytes / self.bandwidth + self.launches)


@dataclass(frozen=True, slots=True)
class Decoder:
    """What decoding reads: the bytes of `parts` over all ranks, and the cache of one of them.

    The model's own head (`mtp`) drafts one token after the other; a drafter's `drafter_bytes` (of a rank) are read
    once. `bandwidth` is in bytes a second, `launch` the seconds of a layer's launches.
    """

    geometry: Geometry
    parts: Mapping[str, float]
    cache: CacheLayout
    bandwidth: float
    launch: float = 0.0
    tensor_parallel: int = 1
    mtp: bool = False
    drafter_bytes: float = 0.0

    def step(self, streams: int = 1, drafted: int = 0, tokens: float = 1.0) -> DecodeStep:
        """One step of `streams` requests with `drafted` tokens each, of which each gets `tokens`."""
        positions = streams * (drafted + 1)
        head = self.parts.get("head", self.parts.get("embedding", 0.0)) / self.tensor_parallel
        drafting = self.drafter_bytes + head if self.drafter_bytes and drafted else 0.0
        if self.mtp and drafted:
            own = self.parts.get("mtp", 0.0) + self._routed("mtp_experts", streams)
            drafting = drafted * (own / self.tensor_parallel + head)
        return DecodeStep(
            streams=streams,
            base=sum(self.parts.get(part, 0.0) for part in ONCE) / self.tensor_parallel,
            experts=self._routed("experts", positions) / self.tensor_parallel,
            head=head,
            state=streams * 2.0 * self.cache.state_bytes_per_request,
            cache=streams * self.cache.read(CONTEXT),
            drafting=drafting,
            tokens=tokens,
            bandwidth=self.bandwidth,
            launches=self.launch
            * (len(self.geometry.layers) + (drafted * self.geometry.mtp_layers if self.mtp else 0)),
        )

    def _routed(self, part: str, positions: int) -> float:
        """Bytes of a part's experts that so many tokens read."""
        experts, each = self.geometry.experts, self.geometry.experts_per_token
        return self.parts.get(part, 0.0) * (each / experts if experts else 0.0) * distinct(experts, each, positions)


def distinct(experts: int, each: int, positions: int) -> float:
    """How many times the experts of one token `positions` tokens read: expected distinct ones, chosen independently."""
    if not experts or not each:
        return 1.0
    return experts * (1 - (1 - each / experts) ** positions) / each
