"""The pool of cache blocks, as the engine counts it: layers in groups, blocks of one size, blocks that a request takes.

It must not know where the memory for it comes from.

Source: the engine's grouping rule (vLLM 0.33 v1/core/kv_cache_planning.py: the smallest kind of layer
gives the size of a group, or the largest where it is less than 1.25 times as many; pages of all kinds are made equal by
longer blocks); with a drafter it gives the 314 blocks a request that both published DFlash pools have in common.
Where layers of one kind keep pages of two sizes, pages stay unlike and lie one after the other in a block: that gives
the 185 blocks a request and the 1,148 blocks of a published Qwen3.8-Flash-Next on two Sparks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal, TypeAlias

from sparkops.models.architecture.architectures import Cached
from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.hybrid_cache import (
    PACKED,
    POOLED,
    WINDOWED,
    CacheLayout,
    CacheOptions,
    Kept,
    token_bytes,
)
from sparkops.models.effective import Effective
from sparkops.models.serve_line import ServeLine

Kind: TypeAlias = Literal["full", "sliding", "chunked", "state", "states"]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind that share a table of blocks. `count` groups of that kind; a block holds `tokens` of them.

    `fixed` is what a request takes of each whatever its length: its states, or the blocks of a sliding window at most;
    of `states`, one for each block, what it takes besides.
    """

    kind: Kind
    count: int
    tokens: int
    fixed: int

    def blocks(self, context: int) -> int:
        """Blocks that a request of `context` tokens takes of all these groups."""
        if self.kind == "state":
            return self.count * self.fixed
        needed = ceil(context / self.tokens)
        if self.kind == "states":
            return self.count * (needed + self.fixed)
        return self.count * (min(needed, self.fixed) if self.kind in WINDOWED else needed)


@dataclass(frozen=True, slots=True)
class Pool:
    """Blocks on one rank: groups, bytes of one block over the layers of a group, and how many there are."""

    groups: tuple[Group, ...]
    block_bytes: int
    blocks: int

    def request_blocks(self, context: int) -> int:
        """Blocks that one request of that many tokens takes."""
        return sum(group.blocks(context) for group in self.groups)

    def streams(self, context: int) -> int:
        """How many requests of that many tokens fit at once. One block is the engine's own (the null block)."""
        return max(0, self.blocks - 1) // self.request_blocks(context)

    def context(self, streams: int, most: int) -> int:
        """The longest context, `most` at most, of which that many requests fit; 0 where none does."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.streams(middle) >= streams else (low, middle - 1)
        return low

    def tokens(self, context: int) -> int:
        """The pool in tokens of requests of that length: concurrency × length, as the engine prints it since 0.20."""
        return self.blocks * context // self.request_blocks(context)

    def tokens_by_groups(self) -> int:
        """The pool as engines up to 0.19 print it: blocks shared out evenly over all groups, × the smallest block."""
        attention = [group.tokens for group in self.groups if not group.kind.startswith("state")]
        return self.blocks // sum(group.count for group in self.groups) * min(attention)


@dataclass(frozen=True, slots=True)
class _Layers:
    """All layers of one kind: how many, bytes of a page, tokens in it; the window, or the states of a request."""

    kind: Kind
    layers: int
    page: int
    tokens: int
    window: int = 0
    states: int = 0


def shape(cache: CacheLayout, effective: Effective, drafter: Geometry | None) -> tuple[tuple[Group, ...], int]:
    """The groups and the bytes of a block. The cache's sizes must be known (`cache.page_bytes`)."""
    if any(each.cached.kind in (PACKED, POOLED) for each in cache.kept):
        return _packed(list(_buckets(cache, effective)))
    kinds = _kinds(cache, effective, drafter)
    if all(each.kind == "full" for each in kinds):
        bytes_of_all = sum(each.page * ceil(each.layers / effective.pipeline_parallel) for each in kinds)
        return (Group("full", 1, kinds[0].tokens, 0),), bytes_of_all
    page = max(each.page for each in kinds)
    most, least = max(each.layers for each in kinds), min(each.layers for each in kinds)
    size = most if most < least * 1.25 else least
    groups = tuple(_group(each, ceil(each.layers / size), page, effective) for each in kinds)
    return groups, page * ceil(size / effective.pipeline_parallel)


def _group(of: _Layers, count: int, page: int, effective: Effective) -> Group:
    """Groups of one kind. Where its pages are smaller, its blocks are longer."""
    if of.kind in ("state", "states"):
        return Group(of.kind, count, of.tokens, of.states)
    tokens = of.tokens * (page // of.page if page % of.page == 0 else 1)
    own = tokens // effective.decode_context_parallel
    kept = _window(of.window, effective, own) if of.kind == "sliding" else _chunk(of.window, effective, own)
    return Group(of.kind, count, tokens, kept if of.window else 0)


@dataclass(slots=True)
class _Bucket:
    """Layers that may share a group: how many keep a page of each size, and what a group of them is."""

    group: Group
    pages: dict[int, int] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether there are as many layers of each page."""
        return len(set(self.pages.values())) == 1

    @property
    def layers(self) -> int:
        """Layers of the page that the most have."""
        return max(self.pages.values())

    def widest(self, count: int) -> int:
        """Bytes of the largest group, of so many groups."""
        return sum(page * ceil(layers / count) for page, layers in self.pages.items())


def _buckets(cache: CacheLayout, effective: Effective) -> Iterable[_Bucket]:
    """The layers by block and window; recurrent ones by their states, and whether each rank has the whole."""
    found: dict[object, _Bucket] = {}
    for each in cache.kept:
        for key, group, page in _shares(each, cache, effective):
            pages = found.setdefault(key, _Bucket(group)).pages
            pages[page] = pages.get(page, 0) + each.layers
    return found.values()


def _shares(kept: Kept, cache: CacheLayout, effective: Effective) -> Iterable[tuple[object, Group, int]]:
    """What a layer has in which groups, and the bytes of its page there."""
    cached, block = kept.cached, cache.block_size or 0
    if cached.kind == PACKED:
        fixed = _window(cached.window, effective, cached.block) if cached.window else 0
        kind: Kind = "sliding" if cached.window else "full"
        yield (cached.block, cached.window), Group(kind, 1, cached.block, fixed), cached.value
    elif cached.kind == "state":
        states = Group("state", 1, block, state_blocks(effective, cached))
        yield ("state", cached.whole, states.fixed), states, cache.page_bytes or 0
    else:
        yield "full", Group("full", 1, block, 0), block * (kept.token_bytes or 0)
    if cached.kind == POOLED:
        ring = ceil((cached.shared + effective.speculative_tokens) / cached.shared) * cached.shared
        yield POOLED, Group("state", 1, ring, 1), ring * cached.key * 2


def _packed(buckets: Sequence[_Bucket]) -> tuple[tuple[Group, ...], int]:
    """Groups of layers of unlike pages, which lie one after the other in a block. Buckets with as many layers of each
    page are split into groups of alike many, so that the least is empty; states so that they make no block longer."""
    repeats = [bucket.layers for bucket in buckets if bucket.balanced]
    least = max((bucket.layers for bucket in buckets if bucket.balanced and len(bucket.pages) > 1), default=0)
    sizes = range(least, max(repeats, default=0) + 1) if least else ()
    size = min(sizes, key=lambda each: (sum(-count % each for count in repeats), -each), default=0)
    counts = [ceil(bucket.layers / size) if size and bucket.balanced else 1 for bucket in buckets]
    states = [bucket.group.kind == "state" for bucket in buckets]
    anchor = max(
        bucket.widest(bucket.layers if state else count)
        for bucket, count, state in zip(buckets, counts, states, strict=True)
    )
    groups, block_bytes = [], 0
    for bucket, split, state in zip(buckets, counts, states, strict=True):
        count = max(split, ceil(bucket.layers / max(1, anchor // max(bucket.pages)))) if state else split
        block_bytes = max(block_bytes, bucket.widest(count))
        groups.append(replace(bucket.group, count=count))
    return tuple(groups), block_bytes


def _kinds(cache: CacheLayout, effective: Effective, drafter: Geometry | None) -> list[_Layers]:
    assert cache.page_bytes is not None and cache.block_size is not None
    block = cache.block_size
    spread = block * effective.decode_context_parallel
    kinds = []
    for each in cache.kept:
        if each.cached.kind == "state":
            every = effective.mamba_cache_mode == "all"
            fixed = effective.speculative_tokens if every else state_blocks(effective, each.cached)
            kind: Kind = "states" if every else "state"
            kinds.append(_Layers(kind, each.layers, cache.page_bytes, block, states=fixed))
            continue
        page = block * (each.token_bytes or 0)
        kinds.append(_Layers(_kind(each.cached), each.layers, page, spread, each.cached.window))
    if drafter is not None and effective.speculative is not None:
        kinds += _drafting(drafter, effective, block)
    return _merged(kinds)


def state_blocks(effective: Effective, cached: Cached) -> int:
    """States that a request keeps: its own and one for each speculative token; in align mode also the last block's, and
    the checkpoints of layers that export some."""
    aligned = effective.mamba_cache_mode == "align"
    checkpoint = aligned and cached.checkpoints in effective.state_checkpoints
    return 1 + effective.speculative_tokens + int(aligned) + int(checkpoint)


def _window(window: int, effective: Effective, block: int) -> int:
    """Blocks of a sliding window at most, with what is in flight: two batches under asynchronous scheduling since the
    engine counts them."""
    return ceil((window - 1 + effective.batches_in_flight * effective.max_num_batched_tokens) / block) + 1


def _chunk(size: int, effective: Effective, block: int) -> int:
    """Blocks of a part of the request, in whose layers no token reads those of another part, with what is in flight."""
    return ceil((size + effective.batches_in_flight * effective.max_num_batched_tokens) / block)


def _kind(cached: Cached) -> Kind:
    return "sliding" if cached.kind == "sliding" else "chunked" if cached.kind == "chunked" else "full"


ONE_SORT = ("disable-hybrid-kv-cache-manager", "disable-sliding-window")
"""Flags by which the engine treats layers with a window as others."""


def mixed(line: ServeLine, effective: Effective, geometry: Geometry) -> str:
    """Why layers keep a token in a way of their own that is not described; "" where they do not."""
    windowed = any(each.window for each in geometry.cached)
    if windowed and (flag := next((each for each in ONE_SORT if line.get(each)), "")):
        return f"what layers with a window keep with --{flag} is not described"
    if effective.kv_cache_dtype != "auto" and line.get("kv-cache-dtype-skip-layers"):
        return "how the engine packs the layers of --kv-cache-dtype-skip-layers beside the others is not described"
    if effective.kv_cache_dtype.startswith("turboquant_") and not geometry.hybrid:
        return "how the engine packs the first and last two layers beside those of turboquant is not described"
    return ""


def _drafting(drafter: Geometry, effective: Effective, block: int) -> list[_Layers]:
    assert effective.speculative is not None
    given = effective.speculative.given.get("kv_cache_dtype")
    options = CacheOptions(
        kv_dtype=given if isinstance(given, str) else effective.kv_cache_dtype,
        tensor_parallel=effective.tensor_parallel,
    )
    found = []
    for each in drafter.cached:
        size = token_bytes(each, options, drafter.dtype)
        if size is not None:
            found.append(_Layers(_kind(each), 1, size * block, block, each.window))
    return found


def _merged(kinds: list[_Layers]) -> list[_Layers]:
    """Layers whose pages are alike are one kind to the engine, the drafter's too."""
    merged: list[_Layers] = []
    for each in kinds:
        for index, other in enumerate(merged):
            if replace(each, layers=0, tokens=other.tokens) == replace(other, layers=0):
                merged[index] = replace(other, layers=other.layers + each.layers)
                break
        else:
            merged.append(each)
    return merged
