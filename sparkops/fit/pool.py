"""The pool of cache blocks, as the engine counts it: layers in groups, blocks of one size, blocks that a request takes.

It must not know where the memory for it comes from.

Source: the engine's grouping rule (vLLM 0.33 v1/core/kv_cache_utils.py: the smallest kind of layer
gives the size of a group, or the largest where it is less than 1.25 times as many; pages of all kinds are made equal by
longer blocks); with a drafter it gives the 314 blocks a request that both published DFlash pools have in common.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, TypeAlias

from sparkops.models.architecture.architectures import Cached
from sparkops.models.architecture.geometry import Geometry
from sparkops.models.architecture.hybrid_cache import PACKED, WINDOWED, CacheLayout, CacheOptions, token_bytes
from sparkops.models.effective import Effective

Kind: TypeAlias = Literal["full", "sliding", "chunked", "state"]


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind that share a table of blocks. `count` groups of that kind; a block holds `tokens` of them.

    `fixed` is what a request takes of each whatever its length: its states, or the blocks of a sliding window at most.
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
        attention = [group.tokens for group in self.groups if group.kind != "state"]
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
    if any(each.cached.kind == PACKED for each in cache.kept):
        return _packed(cache, effective)
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
    if of.kind == "state":
        return Group(of.kind, count, of.tokens, of.states)
    tokens = of.tokens * (page // of.page if page % of.page == 0 else 1)
    own = tokens // effective.decode_context_parallel
    kept = _window(of.window, effective, own) if of.kind == "sliding" else _chunk(of.window, effective, own)
    return Group(of.kind, count, tokens, kept if of.window else 0)


def _packed(cache: CacheLayout, effective: Effective) -> tuple[tuple[Group, ...], int]:
    """Groups of layers of unlike pages, which lie one after the other in a block: those of one block and window are
    together, split where they have as many of each page, so that the least is empty (vLLM 0.32 kv_cache_utils.py)."""
    alike: dict[tuple[int, int], dict[int, int]] = {}
    for each in cache.kept:
        pages = alike.setdefault((each.cached.block, each.cached.window), {})
        pages[each.cached.value] = pages.get(each.cached.value, 0) + each.layers
    repeats = {key: max(pages.values()) for key, pages in alike.items() if len(set(pages.values())) == 1}
    least = max((count for key, count in repeats.items() if len(alike[key]) > 1), default=0)
    sizes = range(least, max(repeats.values(), default=0) + 1) if least else ()
    size = min(sizes, key=lambda each: (sum(-count % each for count in repeats.values()), -each), default=0)
    groups, block_bytes = [], 0
    for (block, window), pages in alike.items():
        count = ceil(repeats[block, window] / size) if size and (block, window) in repeats else 1
        block_bytes = max(block_bytes, sum(page * ceil(layers / count) for page, layers in pages.items()))
        fixed = _window(window, effective, block) if window else 0
        groups.append(Group("sliding" if window else "full", count, block, fixed))
    return tuple(groups), block_bytes


def _kinds(cache: CacheLayout, effective: Effective, drafter: Geometry | None) -> list[_Layers]:
    assert cache.page_bytes is not None and cache.block_size is not None
    block = cache.block_size
    spread = block * effective.decode_context_parallel
    kinds = []
    for each in cache.kept:
        if each.cached.kind == "state":
            states = state_blocks(effective, each.cached)
            kinds.append(_Layers("state", each.layers, cache.page_bytes, block, states=states))
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
    checkpoints = cached.checkpoints if aligned and effective.state_checkpoints else 0
    return 1 + effective.speculative_tokens + (1 if aligned else 0) + checkpoints


def _window(window: int, effective: Effective, block: int) -> int:
    """Blocks of a sliding window at most, with what is in flight: two batches under asynchronous scheduling since the
    engine counts them."""
    return ceil((window - 1 + effective.batches_in_flight * effective.max_num_batched_tokens) / block) + 1


def _chunk(size: int, effective: Effective, block: int) -> int:
    """Blocks of a part of the request, in whose layers no token reads those of another part, with what is in flight."""
    return ceil((size + effective.batches_in_flight * effective.max_num_batched_tokens) / block)


def _kind(cached: Cached) -> Kind:
    return "sliding" if cached.kind == "sliding" else "chunked" if cached.kind == "chunked" else "full"


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
