"""How the engine lays out a request's memory: bytes of keys and values per token, of recurrent state, and the block.

An engine with both makes the page of an attention layer as large as the state of a linear layer, so the block (tokens
in a page) follows from the model. It must not know versions: what differs between them comes in as plain parameters.

Sources: vLLM platforms/interface.py (_align_hybrid_block_size) and model_executor/models/config.py, run on a CPU in
0.19.1 to 0.33.0 (every row is in tests/unit/lint/verdicts.json); google/tunix pull request 2326; Entrpi FINDINGS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, lcm
from typing import Literal, TypeAlias

from sparkops.models.architecture.architectures import Cached
from sparkops.models.architecture.geometry import STATE, Geometry

UserBlock: TypeAlias = Literal["replace", "multiple"]

DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """A line's options of the cache: types (`auto`: the model's), ranks, speculative tokens of a step.

    `speculative_layers` of the prediction head keep keys and values too.
    """

    kv_dtype: str = "auto"
    ssm_dtype: str = "auto"
    conv_dtype: str = "auto"
    tensor_parallel: int = 1
    speculative_tokens: int = 0
    speculative_layers: int = 0


PLAIN = CacheOptions()


@dataclass(frozen=True, slots=True)
class BlockRule:
    """How long a block is: `wanted` is what the user asked for, `user_block` what the engine makes of it (the block
    itself where it is wide enough, or its divisor), `multiple` the engine's own divisor."""

    wanted: int | None = None
    user_block: UserBlock = "multiple"
    multiple: int = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """What `layers` layers keep alike: `token_bytes` for each token on one rank, None where that is not known; a state
    has `state_bytes` instead."""

    cached: Cached
    layers: int
    token_bytes: int | None
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Sizes on one rank. Bytes are None where the type of the cache is not known.

    `block_size` tokens make a block; one layer's page is `page_bytes`, which holds a block's keys and values or one
    state (`mamba_page_bytes`, 0 without linear layers). `kv_bytes_per_token` is over all attention layers (the
    prediction head's too, with `speculative_layers`; sliding ones as inside their window, `sliding_bytes_per_token` of
    them), `state_bytes_per_request` over all linear layers.
    """

    block_size: int | None
    page_bytes: int | None
    mamba_page_bytes: int
    attention_bytes_per_token: int | None
    state_bytes_per_request: int
    kv_bytes_per_token: int | None
    sliding_bytes_per_token: int
    kept: tuple[Kept, ...]

    @property
    def windows(self) -> tuple[int, ...]:
        """Tokens of the sliding layers' windows, the shortest first."""
        return tuple(sorted({each.cached.window for each in self.kept if each.cached.window}))

    def read(self, context: int) -> float:
        """Bytes of keys and values that a token of a request of that length reads."""
        packed = [each for each in self.kept if each.cached.kind == PACKED]
        if not packed:
            return context * float(self.kv_bytes_per_token or 0)
        return sum(each.layers * _exact(each) * min(each.cached.window or context, context) for each in packed)


def head_bytes(kv_dtype: str, head_dim: int, dtype: str = "bfloat16") -> int | None:
    """Bytes of one token's key *and* value of one head; None for a type of which nothing is known.

    Source: the block sizes that the engine's own code gave for each type (run in vLLM: 4176, 7424, 5504,
    8160, 4112); turboquant_k3v4_nc, turboquant_3bit_nc and int4_per_token_head follow the pattern of their siblings
    [unverified].
    """
    key_bits, key_extra, value_bits, value_extra = _types(dtype).get(kv_dtype.lower(), (0, 0, 0, 0))
    if not key_bits:
        return None
    if kv_dtype.lower() == "nvfp4":
        return 2 * (head_dim // 2 + head_dim // 16) or None
    return ceil(head_dim * key_bits / 8) + key_extra + ceil(head_dim * value_bits / 8) + value_extra


def _types(dtype: str) -> Mapping[str, tuple[int, int, int, int]]:
    """Bits of a key's element, bytes beside each key (scale, norm), and the same of the value."""
    own = 8 * DTYPE_BYTES.get(dtype, 2)
    return {
        "auto": (own, 0, own, 0),
        "float16": (16, 0, 16, 0),
        "bfloat16": (16, 0, 16, 0),
        **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc"), (8, 0, 8, 0)),
        **dict.fromkeys(("int8_per_token_head", "fp8_per_token_head"), (8, 4, 8, 4)),
        "int4_per_token_head": (4, 4, 4, 4),
        "nvfp4": (4, 0, 4, 0),
        "turboquant_k8v4": (8, 0, 4, 4),
        "turboquant_4bit_nc": (4, 2, 4, 4),
        "turboquant_k3v4_nc": (3, 2, 4, 4),
        "turboquant_3bit_nc": (3, 2, 3, 4),
    }


PACKED = "packed"
POOLED = "pooled"
WINDOWED = ("sliding", "chunked")
SPARSE_ENTRY = 656
"""Bytes of a token in a sparse latent cache: 512 of FP8, 16 of scales, 64 rotary elements of 16 bits. The engine takes
this form on a GB10 under `auto` as under `fp8` (vLLM 0.32 v1/attention/backends/mla/flashinfer_mla_sparse_sm120)."""


def token_bytes(cached: Cached, options: CacheOptions, dtype: str) -> int | None:
    """Bytes that one layer keeps of a token on one rank, which replicates heads where there are more ranks than heads;
    None for a type of which nothing is known."""
    heads = max(1, cached.heads // options.tensor_parallel)
    word = options.kv_dtype.lower()
    if cached.kind == "index":
        own = DTYPE_BYTES.get(cached.dtype)
        return cached.key * own if own else cached.key + 4 * (cached.key // 128)
    if cached.kind == POOLED:
        return ceil(cached.key * DTYPE_BYTES.get(cached.dtype, 2) / cached.shared)
    if cached.kind == "sparse":
        return SPARSE_ENTRY if cached.key == 576 and word in ("auto", "fp8", "fp8_e4m3", "fp8_ds_mla") else None
    if cached.kind == "latent":
        wide = {"auto": DTYPE_BYTES.get(dtype, 2), "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1}.get(word)
        return None if wide is None else cached.key * wide
    if cached.kind == PACKED:
        return ceil(cached.key / cached.block) if word in ("auto", "fp8", "fp8_e4m3", "fp8_ds_mla") else None
    if cached.kind not in ("full", *WINDOWED):
        return None
    if cached.key == cached.value:
        both = head_bytes(word, cached.key, dtype)
        return None if both is None else heads * both
    halves = [head_bytes(word, each, dtype) for each in (cached.key, cached.value)]
    return None if None in halves else heads * sum(each or 0 for each in halves) // 2


def state_bytes(cached: Cached, geometry: Geometry, options: CacheOptions = PLAIN) -> int:
    """Bytes of one recurrent layer's state on one rank.

    The convolution keeps its last inputs (one more for each speculative token; groups that the ranks don't divide are
    kept by each), the layer its matrix per head.
    """
    conv = DTYPE_BYTES.get(geometry.dtype if options.conv_dtype == "auto" else options.conv_dtype, 2)
    own = geometry.dtype if cached.dtype in ("", "auto") else cached.dtype
    ssm = DTYPE_BYTES.get(own if options.ssm_dtype == "auto" else options.ssm_dtype, 4)
    window = cached.kernel - 1 + options.speculative_tokens
    ranks = 1 if cached.whole else options.tensor_parallel
    matrix = cached.heads // ranks * cached.key * cached.value
    more = (ranks - cached.groups) if cached.groups % ranks else 0
    channels = cached.channels + 2 * more * cached.value
    return channels // ranks * window * conv + matrix * ssm


def layout(geometry: Geometry, options: CacheOptions = PLAIN, block: BlockRule = BlockRule()) -> CacheLayout:
    """The sizes on one rank."""
    kept = _kept(geometry, options)
    page = max((each.state_bytes for each in kept), default=0)
    known = [each for each in kept if each.cached.kind != STATE]
    whole = [each.token_bytes for each in known if each.cached.kind not in (*WINDOWED, "index", POOLED)]
    attention = (whole or [each.token_bytes for each in known] or [None])[0]
    if geometry.gaps:
        attention = None
    size = _block(geometry, page, attention, block)
    total = None if geometry.gaps or not known else _total(known)
    return CacheLayout(
        block_size=size,
        page_bytes=_page(known, size, attention, total),
        mamba_page_bytes=page,
        attention_bytes_per_token=attention,
        state_bytes_per_request=sum(each.layers * each.state_bytes for each in kept),
        kv_bytes_per_token=total,
        sliding_bytes_per_token=_total([each for each in known if each.cached.window]) or 0,
        kept=kept,
    )


def _kept(geometry: Geometry, options: CacheOptions) -> tuple[Kept, ...]:
    counts: dict[Cached, int] = {}
    for each in (*geometry.cached, *(geometry.drafting_cached if options.speculative_layers else ())):
        counts[each] = counts.get(each, 0) + 1
    return tuple(
        Kept(each, layers, None, state_bytes(each, geometry, options))
        if each.kind == STATE
        else Kept(each, layers, token_bytes(each, options, geometry.dtype))
        for each, layers in counts.items()
    )


def _page(known: Sequence[Kept], size: int | None, attention: int | None, total: int | None) -> int | None:
    if size is None or total is None:
        return None
    packed = [each.cached.value for each in known if each.cached.kind == PACKED]
    if packed:
        return max(packed)
    return None if attention is None else size * attention


def _total(kept: Iterable[Kept]) -> int | None:
    total = 0.0
    for each in kept:
        if each.token_bytes is None:
            return None
        total += each.layers * _exact(each)
    return ceil(total)


def _exact(kept: Kept) -> float:
    """Bytes of a token, of which a group of tokens may share one."""
    return kept.cached.key / kept.cached.block if kept.cached.kind == PACKED else float(kept.token_bytes or 0)


def _block(geometry: Geometry, page: int, attention: int | None, rule: BlockRule) -> int | None:
    """The least block whose attention page holds a state, in steps that kernels, engine and user take."""
    if geometry.gaps:
        return None
    fixed = {each.block for each in geometry.cached if each.block}
    if fixed:
        return max(fixed) if rule.wanted in (None, max(fixed)) else None
    if not page:
        return rule.wanted or 16
    if attention is None:
        return None
    least = _up(ceil(page / attention), rule.multiple)
    if rule.wanted is None:
        return least
    if rule.user_block == "replace":
        return max(least, rule.wanted)
    return _up(least, lcm(rule.multiple, rule.wanted))


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
