"""Which part of a model a tensor belongs to, by the names in checkpoints, and which files are a second layout.

Names as vLLM's loaders read them (vllm 0.32 and 0.33 models; the prediction head's are those of qwen3_5_mtp).
Controller and node share it: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ORDER = (
    "experts", "shared experts", "router", "attention", "linear attention", "dense layers", "norms", "head",
    "embeddings", "mtp", "vision", "other",
)  # fmt: skip
"""All parts, in the order in which they are told."""

_NAMES = (
    ("mtp_experts", re.compile(r"(^|\.)mtp\..*\.experts\.")),
    ("mtp", re.compile(r"(^|\.)mtp\.")),
    (
        "vision",
        re.compile(
            r"(^|\.)(visual|vision_tower|vision_model|vision_embed_tokens|multi_modal_projector|mm_projector)\."
        ),
    ),
    ("head", re.compile(r"((^|\.)lm_head|^head)(\.|$)")),
    ("embedding", re.compile(r"((^|\.)(embed_tokens|embeddings|tok_embeddings)|^embed)(\.|$)")),
    (
        "router",
        re.compile(r"\.(mlp|block_sparse_moe|feed_forward|mixer|moe|ffn)\.(gate|router|shared_expert_gate)(\.|$)"),
    ),
    ("shared_experts", re.compile(r"\.(share_expert|shared_experts?|shared_mlp)\.")),
    ("experts", re.compile(r"\.experts(\.|$)")),
    ("linear_small", re.compile(r"\.(linear_attn|mamba|mixer)\.(in_proj_[ab]|conv1d|A_log|D|dt_bias|norm)")),
    ("linear_attention", re.compile(r"\.(linear_attn|mamba|conv)\.|\.mixer\.(in|out)_proj")),
    ("attention_norms", re.compile(r"\.(self_attn|attention|attn)\..*norm")),
    ("attention", re.compile(r"\.(self_attn|attention|attn)\.|\.mixer\.[qkvo]_proj")),
    ("norms", re.compile(r"norm[^.]*(\.|$)")),
    ("dense", re.compile(r"\.(mlp|feed_forward|mixer|ffn)\.")),
)
"""The finest parts that anything here tells apart; the first that is found decides."""

_GROUPS = {
    "mtp_experts": "mtp", "embedding": "embeddings", "shared_experts": "shared experts", "dense": "dense layers",
    "linear_small": "linear attention", "linear_attention": "linear attention", "attention_norms": "attention",
}  # fmt: skip
"""The part of `ORDER` that a finer one belongs to: a norm inside an attention layer is read with it."""

_PIECE = re.compile(r"\.(weight|bias|qweight|qzeros|scales|g_idx|weight_packed|weight_scale|weight_scale_2"
                    r"|weight_scale_inv|weight_shape|weight_zero_point|input_scale|weight_global_scale"
                    r"|input_global_scale)$")  # fmt: skip
MTP_COMMON = ("fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")
MTP_LAYER = (
    "input_layernorm", "post_attention_layernorm",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm",
    "self_attn.k_norm", "mlp.gate", "mlp.shared_expert_gate", "mlp.shared_expert.gate_proj",
    "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj",
)  # fmt: skip
"""With the four common ones these are the 17 that an MTP layer has beside three per expert."""


def finest_part_of(name: str) -> str:
    """The part of a tensor, small pieces and norms of a layer apart from it."""
    return next((part for part, pattern in _NAMES if pattern.search(name)), "other")


def part_of(name: str) -> str:
    """The part of `ORDER` that a tensor belongs to."""
    part = finest_part_of(name)
    return _GROUPS.get(part, part)


def module_of(name: str) -> str:
    """The layer that a tensor is a piece of: the name without `.weight`, `.qweight`, `.scales` and the like."""
    return _PIECE.sub("", name)


def missing_mtp(names: Iterable[str], text_config: Mapping[str, object]) -> list[str]:
    """The MTP layers' modules that config.json promises (17 and three per expert for each) and no tensor has.

    Experts that are kept fused (`mlp.experts.gate_up_proj`, `mlp.experts.down_proj`) count as all experts. Empty where
    the model has no MTP layer at all by its configuration.
    """
    return mtp_difference(names, text_config)[0]


def mtp_difference(names: Iterable[str], text_config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """`missing_mtp`, and the MTP modules that are there and not promised."""
    present = dict.fromkeys(module_of(name).partition("mtp.")[2] for name in names if part_of(name) == "mtp")
    layers, experts = int(text_config.get("mtp_num_hidden_layers") or 0), int(text_config.get("num_experts") or 0)
    wanted = dict.fromkeys(MTP_COMMON if layers else ())
    for layer in range(layers):
        prefix = f"layers.{layer}."
        modules = list(MTP_LAYER)
        if f"{prefix}mlp.experts.gate_up_proj" in present:
            modules += ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
        else:
            kinds = ("gate_proj", "up_proj", "down_proj")
            modules += [f"mlp.experts.{expert}.{kind}" for expert in range(experts) for kind in kinds]
        wanted |= dict.fromkeys(prefix + each for each in modules)
    missing = [f"mtp.{each}" for each in wanted if each not in present]
    return missing, [f"mtp.{each}" for each in present if each not in wanted]


def second_layout(files: Iterable[str], listed: Iterable[str]) -> list[str]:
    """The safetensors files that hold the weights once more in another layout, which no engine here loads.

    They lie in a folder of their own (`original/`) or are named `consolidated…`; what the index lists (`listed`) never
    is one, and the only files there are neither.
    """
    named, there = set(listed), list(files)
    found = [each for each in there if each not in named and ("/" in each or each.startswith("consolidated"))]
    return found if len(found) < len(there) else []
