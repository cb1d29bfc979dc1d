"""In which format each part of a model's weights is stored, and so how many bytes it has.

A format is a word: `bf16`, `fp32`, `fp8`, `int8`, `int4-g128` (bits and group), `nvfp4`, `mxfp4`. What a repository
stores is known from `knowledge/models/`, or read from the `quantization_config` of its config.json.

Sources: the formats themselves (bytes per parameter), intel/auto-round documents, vLLM quantization/inc, and the
configurations in tests/unit/lint/verdicts.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from sparkops.models.architecture.architectures import Tensor
from sparkops.models.architecture.geometry import FLOAT32, Geometry
from sparkops.models.architecture.quantisation_rules import Rules

PLAIN: Mapping[str, float] = {
    "bf16": 2,
    "fp32": 4,
    "fp8": 1,
    "mxfp8": 8.25 / 8,
    "int8": 1,
    "nvfp4": 4.5 / 8,
    "mxfp4": 4.25 / 8,
}
"""Bytes per parameter, block scales included; `intB-gG`: B bits and 16 bits of scale for each G; `-zN`: and N bits for
its zero point; `intB-channel`: B bits, and a scale for each output, which does not count."""
ZERO_POINTS = ("gptq", "gptq_marlin", "awq", "awq_marlin", "auto-round", "inc")
"""The methods whose zero points stay in memory, symmetric ones too (vLLM auto_gptq, auto_awq, inc)."""
MODULES: Mapping[str, str] = {
    "head": "lm_head",
    "attention": "model.language_model.layers.0.self_attn.q_proj",
    "linear_attention": "model.language_model.layers.0.linear_attn.in_proj_qkv",
    "dense": "model.language_model.layers.0.mlp.gate_proj",
    "shared_experts": "model.language_model.layers.0.mlp.shared_expert.gate_proj",
    "experts": "model.language_model.layers.0.mlp.experts.0.gate_proj",
    "mtp": "mtp.layers.0.self_attn.q_proj",
    "mtp_experts": "mtp.layers.0.mlp.experts.0.gate_proj",
}
"""The parts that methods quantise, each with the name of one of its tensors, against which exclusions are matched."""


DECLARED = ("quantization_config", "compression_config")
"""The keys of a config.json that declare it, the first that is there."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a checkpoint is quantised: `quant_method` of its config.json ("" for none), its algorithm, bits, group size.

    `formats` names the format of the parts that are not stored in the model's own type; `ignored` what the
    configuration excludes, in its own words; `steps` the build steps that it notes. `beside` says that only
    `hf_quant_config.json` declares it.
    """

    method: str = ""
    algorithm: str = ""
    bits: int = 16
    group_size: int = 0
    formats: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    kv_dtype: str = "auto"
    rules: Rules | None = None
    steps: tuple[str, ...] = ()
    beside: bool = False

    def cache_dtype(self, geometry: Geometry | None) -> str:
        """The type of the cache under `auto`: one that compressed-tensors declares counts only in a cache of keys and
        values, whose layers alone read it."""
        plain = geometry is None or geometry.plain
        return self.kv_dtype if plain or self.method != "compressed-tensors" else "auto"

    @property
    def unknown(self) -> str:
        """Why the bytes are not known; "" where they are."""
        return self.rules.unknown if self.rules else ""

    def format(self, tensor: Tensor) -> str:
        """The format of a tensor; "" for the model's own type."""
        if self.rules is None:
            word = self.formats.get(tensor.part, "")
        else:
            word = self.rules.format(tensor.names, tensor.part) if tensor.quantised else ""
        if self.method not in ZERO_POINTS or not word.startswith("int") or "-g" not in word:
            return word
        bits = int(word[3])  # Marlin's experts keep theirs in half the bytes (GPTQMarlinMoEMethod: params_dtype)
        return f"{word}-z{bits // 2 if tensor.width and not self.method.startswith('awq') else bits}"


def bytes_per_parameter(word: str) -> float:
    """Bytes that one parameter of a format takes, its scale included. Raises ValueError for another word."""
    if word in PLAIN:
        return PLAIN[word]
    if channel := re.fullmatch(r"int([2-8])-channel", word):
        return int(channel[1]) / 8
    match = re.fullmatch(r"int([2-8])-g(\d+)(?:-z(\d))?", word)
    if match is None or int(match[2]) == 0:
        raise ValueError(f"{word!r} is no format; known: {', '.join(PLAIN)}, int4-g128")
    zeros = int(match[3] or 0)
    return (int(match[1]) + (16 + zeros) / int(match[2])) / 8


def own_format(dtype: str) -> str:
    """The format of what is not quantised in a model of that type."""
    return "fp32" if dtype in FLOAT32 else "bf16"


def part_bytes(geometry: Geometry, quantisation: Quantisation, ranks: int = 1) -> dict[str, float]:
    """Bytes of each part of the weights, over all ranks of tensor parallelism together."""
    own = own_format(geometry.dtype)
    parts: dict[str, float] = {}
    for each in geometry.tensors:
        word = own_format(each.dtype) if each.dtype and not each.quantised else quantisation.format(each) or own
        parts[each.part] = parts.get(each.part, 0) + _padded(each, word, ranks) * bytes_per_parameter(word)
    return parts


def _padded(tensor: Tensor, word: str, ranks: int) -> float:
    """Elements of a tensor as the kernel wants them: Marlin pads MXFP4 experts (vLLM 0.32 fused_moe/oracle/mxfp4)."""
    if word != "mxfp4" or not tensor.width:
        return tensor.parameters
    shard, outer = tensor.width / ranks, tensor.elements // tensor.width
    return tensor.count * ranks * (ceil(shard / 128) * 128) * (ceil(outer / 256) * 256)


def of_config(config: Mapping[str, object], beside: Mapping[str, object] | None = None) -> Quantisation:
    """The quantisation that a config.json declares, or else the `hf_quant_config.json` beside it; none without."""
    text = config.get("text_config")
    places = (config, text if isinstance(text, Mapping) else {})
    content = next((each[key] for key in DECLARED for each in places if each.get(key)), None)
    inner = (beside or {}).get("quantization")
    alone = not content and isinstance(inner, Mapping)
    if isinstance(inner, Mapping) and alone:
        content = {"quant_method": "modelopt" if _of_modelopt(beside or {}, inner) else "", **inner}
    if not isinstance(content, Mapping) or not content:
        return Quantisation()
    rules = Rules(content, str(config.get("expert_dtype") or ""))
    groups = content.get("config_groups")
    first: object = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
    weights = first.get("weights") if isinstance(first, Mapping) else None
    weights = weights if isinstance(weights, Mapping) else {}
    return Quantisation(
        method=rules.method,
        algorithm=str(content.get("quant_algo") or ""),
        bits=_whole(content.get("bits", weights.get("num_bits", 8 if rules.method == "fp8" else 16)), 16),
        group_size=_whole(content.get("group_size", weights.get("group_size")), 0),
        formats={part: word for part, name in MODULES.items() if (word := rules.format([name], part))},
        ignored=rules.exclusions,
        kv_dtype=_kv_dtype(content, rules.method),
        rules=rules,
        steps=tuple(map(str, noted)) if isinstance(noted := config.get("sparkops"), Mapping) else (),
        beside=alone,
    )


def _of_modelopt(beside: Mapping[str, object], inner: Mapping[str, object]) -> bool:
    """Whether the engine reads the file: one without its producer is no quantisation to it (vLLM
    transformers_utils/model_arch_config_convertor.py, the same in 0.19.1 to 0.32.0)."""
    producer = beside.get("producer")
    named = isinstance(producer, Mapping) and producer.get("name") == "modelopt"
    return named or "modelopt_quant_config" in inner


def _kv_dtype(content: Mapping[str, object], method: str) -> str:
    """The type of the cache that a checkpoint declares, which the engine takes under `auto`."""
    if method == "compressed-tensors":  # vLLM layers/attention/attention.py: whatever the scheme says
        return "auto" if content.get("kv_cache_scheme") is None else "fp8"
    if not method.startswith("modelopt"):
        return "auto"
    asked = content.get("kv_cache_scheme") or content.get("kv_cache_quant_algo")
    if isinstance(asked, Mapping):
        bits = asked.get("num_bits") if asked.get("type") == "float" else None
        return {8: "fp8", 4: "nvfp4"}.get(_whole(bits, 0), "auto")
    return {"FP8": "fp8", "NVFP4": "nvfp4"}.get(str(asked).upper(), "auto")


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
