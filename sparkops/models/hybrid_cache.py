"""How the engine lays out a request's memory: bytes of keys and values per token, of recurrent state, and the block.

An engine with both makes the page of an attention layer as large as the state of a linear layer, so the block (tokens
in a page) follows from the model. It must not know versions: what differs between them comes in as plain parameters.

Sources: vLLM platforms/interface.py (_align_hybrid_block_size) and model_executor/models/config.py, run on a CPU in
0.19.1 to 0.33.0 (every row is in tests/unit/lint/verdicts.json); google/tunix pull request 2326; Entrpi FINDINGS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, lcm
from typing import Literal, TypeAlias

from sparkops.models.geometry import Geometry

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
class CacheLayout:
    """Sizes on one rank. Bytes are None where the type of the cache is not known.

    `block_size` tokens make a block; one layer's page is `page_bytes`, which holds a block's keys and values or one
    state (`mamba_page_bytes`, 0 without linear layers). `kv_bytes_per_token` is over all attention layers (the
    prediction head's too, with `speculative_layers`), `state_bytes_per_request` over all linear layers.
    """

    block_size: int | None
    page_bytes: int | None
    mamba_page_bytes: int
    attention_bytes_per_token: int | None
    state_bytes_per_request: int
    kv_bytes_per_token: int | None


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


def mamba_page(geometry: Geometry, options: CacheOptions = PLAIN) -> int:
    """Bytes of one linear layer's state on one rank; 0 without linear layers.

    The convolution keeps its last inputs (one more for each speculative token), the delta net its matrix per head.
    """
    if not geometry.hybrid:
        return 0
    conv = DTYPE_BYTES.get(geometry.dtype if options.conv_dtype == "auto" else options.conv_dtype, 2)
    ssm = DTYPE_BYTES.get(geometry.ssm_dtype if options.ssm_dtype == "auto" else options.ssm_dtype, 4)
    window = geometry.conv_kernel - 1 + options.speculative_tokens
    heads = geometry.linear_value_heads // options.tensor_parallel
    matrix = heads * geometry.linear_key_dim * geometry.linear_value_dim
    return geometry.conv_dim // options.tensor_parallel * window * conv + matrix * ssm


def layout(geometry: Geometry, options: CacheOptions = PLAIN, block: BlockRule = BlockRule()) -> CacheLayout:
    """The sizes on one rank, which replicates the KV heads where there are more ranks than heads."""
    page = mamba_page(geometry, options)
    head = None if geometry.gaps else head_bytes(options.kv_dtype, geometry.head_dim, geometry.dtype)
    attention = None if head is None else max(1, geometry.kv_heads // options.tensor_parallel) * head
    size = _block(page, attention, block)
    layers = geometry.attention_layers + options.speculative_layers
    return CacheLayout(
        block_size=size,
        page_bytes=None if size is None or attention is None else size * attention,
        mamba_page_bytes=page,
        attention_bytes_per_token=attention,
        state_bytes_per_request=page * geometry.linear_layers,
        kv_bytes_per_token=None if attention is None else attention * layers,
    )


def _block(page: int, attention: int | None, rule: BlockRule) -> int | None:
    """The least block whose attention page holds a state, in steps that kernels, engine and user take."""
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
