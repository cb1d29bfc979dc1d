"""The shape of a model, as its `config.json` gives it: layers, heads, experts, state; and the parameters of each part.

It must not know an engine, a quantisation or a memory: `hybrid_cache`, `quantisation` and `sparkops.fit` build on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparkops.core.errors import InventoryError

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
COMPRESSED_ATTENTION = "kv_lora_rank"
"""The key of attention over a latent (MLA), which this geometry does not describe."""
STATE_KEYS = (
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
)
"""What the state of a linear layer is made of."""
LARGEST, MOST_LAYERS = 10**12, 10_000
"""Sizes beyond which a configuration is taken for wrong."""
KEYS = (
    "architectures",
    "attn_output_gate",
    "decoder_sparse_step",
    "dflash_config",
    "dtype",
    "experts_per_token",
    "first_k_dense_replace",
    "full_attention_interval",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    COMPRESSED_ATTENTION,
    "layer_types",
    "linear_conv_kernel_dim",
    "linear_key_head_dim",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_value_head_dim",
    "mamba_ssm_dtype",
    "max_position_embeddings",
    "mlp_only_layers",
    "model_type",
    "moe_intermediate_size",
    "mtp_num_hidden_layers",
    "n_routed_experts",
    "n_shared_experts",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "num_local_experts",
    "num_nextn_predict_layers",
    "num_target_layers",
    "shared_expert_intermediate_size",
    "sliding_window",
    "text_config",
    "tie_word_embeddings",
    "torch_dtype",
    "vision_config",
    "vocab_size",
)
"""The keys of a config.json that `of_config` reads; those of its parts are the two below."""
VISION_KEYS = (
    "depth",
    "hidden_size",
    "in_channels",
    "intermediate_size",
    "num_position_embeddings",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)
DRAFTING_KEYS = ("target_layer_ids",)


@dataclass(frozen=True)
class Geometry:
    """The sizes of one model; 0 where it has no such part. Counts are numbers of elements, not bytes.

    `layers` names each layer's kind in order: full_attention, sliding_attention or linear_attention (gated delta net).
    `target_layers` is how many layers the model has that this one drafts for, `tapped_layers` from how many it reads.
    `gaps` lists what the configuration has that these sizes do not describe; parameters are then not known.
    """

    architectures: tuple[str, ...]
    model_type: str
    layers: tuple[str, ...]
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    gated_attention: bool
    vocabulary: int
    tied_embeddings: bool
    max_positions: int
    dense_layers: int
    intermediate: int
    experts: int
    experts_per_token: int
    expert_intermediate: int
    shared_intermediate: int
    linear_key_heads: int
    linear_value_heads: int
    linear_key_dim: int
    linear_value_dim: int
    conv_kernel: int
    mtp_layers: int
    dtype: str
    ssm_dtype: str
    sliding_window: int
    vision_parameters: int
    multimodal: bool
    target_layers: int
    tapped_layers: int
    gaps: tuple[str, ...] = ()

    @property
    def attention_layers(self) -> int:
        """How many layers keep keys and values."""
        return sum(kind != LINEAR for kind in self.layers)

    @property
    def linear_layers(self) -> int:
        """How many layers keep a recurrent state instead."""
        return sum(kind == LINEAR for kind in self.layers)

    @property
    def hybrid(self) -> bool:
        """Whether it has both, so that the engine makes their pages equal."""
        return self.linear_layers > 0

    @property
    def conv_dim(self) -> int:
        """Channels of a linear layer's convolution: queries, keys and values."""
        return 2 * self.linear_key_heads * self.linear_key_dim + self.linear_value_heads * self.linear_value_dim

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Parameters of each part; biases are left out. Source of names and sizes: vLLM 0.33 models qwen3_5.

        `experts` are the routed ones, all of them. `mtp_…` is the prediction head, which shares embedding and head.
        """
        width = len(self.layers)
        sparse = width - self.dense_layers if self.experts else 0
        parts = {
            "embedding": self.vocabulary * self.hidden,
            "head": 0 if self.tied_embeddings else self.vocabulary * self.hidden,
            "attention": self.attention_layers * self._attention,
            "linear_attention": self.linear_layers * self._linear_projections,
            "linear_small": self.linear_layers * self._linear_small,
            "dense": (width - sparse) * 3 * self.hidden * self.intermediate,
            "router": sparse * self._router,
            "shared_experts": sparse * 3 * self.hidden * self.shared_intermediate,
            "experts": sparse * self.experts * self.expert,
            "norms": width * 2 * self.hidden + self.hidden + self.attention_layers * 2 * self.head_dim,
            "mtp": self.mtp_layers * self._mtp_dense,
            "mtp_experts": self.mtp_layers * self.experts * self.expert,
            "fusion": self.tapped_layers * self.hidden**2,
            "vision": self.vision_parameters,
        }
        return {part: count for part, count in parts.items() if count}

    def uneven(self, ranks: int) -> Mapping[str, int]:
        """The heads that cannot be split evenly over so many ranks: which ones, and how many there are."""
        counts = {"attention heads": self.heads, "linear value heads": self.linear_value_heads}
        return {what: count for what, count in counts.items() if count % ranks}

    @property
    def text_parameters(self) -> int:
        """Parameters without the vision tower and the prediction head: the total that model cards give."""
        return sum(count for part, count in self.parameters.items() if part != "vision" and not part.startswith("mtp"))

    @property
    def expert(self) -> int:
        """Parameters of one routed expert of one layer: gate, up, down."""
        return 3 * self.hidden * self.expert_intermediate

    @property
    def _attention(self) -> int:
        queries = self.heads * self.head_dim * (2 if self.gated_attention else 1)
        return self.hidden * (queries + 2 * self.kv_heads * self.head_dim + self.heads * self.head_dim)

    @property
    def _linear_projections(self) -> int:
        values = self.linear_value_heads * self.linear_value_dim
        return self.hidden * (self.conv_dim + values) + values * self.hidden

    @property
    def _linear_small(self) -> int:
        heads = self.linear_value_heads
        return 2 * self.hidden * heads + self.conv_dim * self.conv_kernel + 2 * heads + self.linear_value_dim

    @property
    def _router(self) -> int:
        return self.hidden * self.experts + (self.hidden if self.shared_intermediate else 0)

    @property
    def _mtp_dense(self) -> int:
        mlp = (
            self._router + 3 * self.hidden * self.shared_intermediate
            if self.experts
            else 3 * self.hidden * self.intermediate
        )
        return 2 * self.hidden * self.hidden + 5 * self.hidden + self._attention + 2 * self.head_dim + mlp


def of_config(config: Mapping[str, Any], where: str = "config.json") -> Geometry:
    """The geometry in a config.json, its text part nested under `text_config` or flat.

    Raises InventoryError, naming the key, where a size that every transformer has is missing or no number, or where
    there are more than 10,000 layers.
    """
    text = config.get("text_config")
    keys = _Keys({**config, **text} if isinstance(text, Mapping) else config, where)
    hidden, heads = keys.size("hidden_size"), keys.size("num_attention_heads")
    if not keys.first("head_dim") and hidden < heads:
        raise InventoryError.of("model-heads-wider-than-hidden", where=where, hidden=hidden, heads=heads)
    layers = _layers(keys)
    experts = keys.first("num_experts", "n_routed_experts", "num_local_experts")
    vision = config.get("vision_config")
    return Geometry(
        architectures=_names(keys, "architectures"),
        model_type=str(config.get("model_type", "")),
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=keys.first("num_key_value_heads") or heads,
        head_dim=keys.first("head_dim") or hidden // heads,
        gated_attention=bool(keys.get("attn_output_gate")),
        vocabulary=keys.size("vocab_size"),
        tied_embeddings=bool(keys.get("tie_word_embeddings")),
        max_positions=keys.first("max_position_embeddings"),
        dense_layers=_dense_layers(keys, len(layers)) if experts else len(layers),
        intermediate=keys.first("intermediate_size"),
        experts=experts,
        experts_per_token=keys.first("num_experts_per_tok", "experts_per_token"),
        expert_intermediate=keys.first("moe_intermediate_size") or (keys.first("intermediate_size") if experts else 0),
        shared_intermediate=_shared_intermediate(keys),
        linear_key_heads=keys.first("linear_num_key_heads"),
        linear_value_heads=keys.first("linear_num_value_heads"),
        linear_key_dim=keys.first("linear_key_head_dim"),
        linear_value_dim=keys.first("linear_value_head_dim"),
        conv_kernel=keys.first("linear_conv_kernel_dim"),
        mtp_layers=keys.first("mtp_num_hidden_layers", "num_nextn_predict_layers"),
        dtype=str(keys.get("dtype") or keys.get("torch_dtype") or "bfloat16"),
        ssm_dtype=str(keys.get("mamba_ssm_dtype") or keys.get("dtype") or "bfloat16"),
        sliding_window=keys.first("sliding_window") if SLIDING in layers else 0,
        vision_parameters=_vision(vision) if isinstance(vision, Mapping) else 0,
        multimodal=isinstance(vision, Mapping),
        target_layers=keys.first("num_target_layers"),
        tapped_layers=_tapped(config.get("dflash_config")),
        gaps=_gaps(keys, layers),
    )


class _Keys:
    """Reads sizes of one configuration; a missing one is an error that names it."""

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self.content = content
        self.where = where

    def get(self, key: str) -> Any:
        return self.content.get(key)

    def first(self, *keys: str) -> int:
        """The first of these that is there; 0 where none is."""
        for key in keys:
            value = self.content.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
                raise InventoryError.of("model-size-invalid", where=self.where, key=key, value=value)
            return value
        return 0

    def size(self, key: str) -> int:
        value = self.first(key)
        if not value:
            raise InventoryError.of("model-size-missing", where=self.where, key=key)
        return value


def _layers(keys: _Keys) -> tuple[str, ...]:
    count = keys.size("num_hidden_layers")
    if count > MOST_LAYERS:
        raise InventoryError.of("model-layers-too-many", where=keys.where, count=count, most=MOST_LAYERS)
    named = _names(keys, "layer_types")
    if len(named) == count:
        return named
    interval = keys.first("full_attention_interval")
    if interval and keys.first("linear_num_value_heads"):
        return tuple(FULL if (index + 1) % interval == 0 else LINEAR for index in range(count))
    return (FULL,) * count


def _names(keys: _Keys, key: str) -> tuple[str, ...]:
    value = keys.get(key)
    if value is not None and not isinstance(value, list):
        raise InventoryError.of("model-list-invalid", where=keys.where, key=key, value=value)
    return tuple(str(each) for each in value or ())


def _dense_layers(keys: _Keys, count: int) -> int:
    step = keys.first("decoder_sparse_step") or 1
    leading = keys.first("first_k_dense_replace")
    dense = {index for index in range(count) if index < leading or (index + 1) % step}
    only = keys.get("mlp_only_layers")
    named = {each for each in only if isinstance(each, int) and 0 <= each < count} if isinstance(only, list) else set()
    return len(dense | named)


def _shared_intermediate(keys: _Keys) -> int:
    return keys.first("shared_expert_intermediate_size") or (
        keys.first("n_shared_experts") * keys.first("moe_intermediate_size")
    )


def _gaps(keys: _Keys, layers: Iterable[str]) -> tuple[str, ...]:
    unknown = sorted(set(layers) - {FULL, SLIDING, LINEAR})
    gaps = [f"layers of the kind {kind!r}" for kind in unknown]
    if keys.get(COMPRESSED_ATTENTION):
        gaps.append(f"attention over a latent ({COMPRESSED_ATTENTION})")
    lacking = [key for key in STATE_KEYS if not keys.first(key)] if LINEAR in layers else []
    if lacking:
        gaps.append(f"linear layers without {', '.join(lacking)}")
    return tuple(gaps)


def _tapped(drafting: Any) -> int:
    layers = drafting.get("target_layer_ids") if isinstance(drafting, Mapping) else None
    return len(layers) if isinstance(layers, list) else 0


def _vision(vision: Mapping[str, Any]) -> int:
    """Parameters of a vision tower in Qwen's shape: blocks, patch and position embedding, merger."""
    sizes = _Keys(vision, "vision_config")
    depth, width, inner = sizes.first("depth"), sizes.first("hidden_size"), sizes.first("intermediate_size")
    merged = width * (sizes.first("spatial_merge_size") or 1) ** 2
    block = 4 * width * width + 4 * width + 2 * width * inner + inner + width + 4 * width
    patch = sizes.first("in_channels") * sizes.first("temporal_patch_size") * sizes.first("patch_size") ** 2 * width
    merger = merged * merged + merged * sizes.first("out_hidden_size")
    return depth * block + patch + sizes.first("num_position_embeddings") * width + merger
