"""In which format each part of a model's weights is stored, and so how many bytes it has.

A format is a word: `bf16`, `fp32`, `fp8`, `int8`, `int4-g128` (bits and group), `nvfp4`, `mxfp4`. What a repository
stores is known from `knowledge/models/`, or read from the `quantization_config` of its config.json.

Sources: the formats themselves (bytes per parameter), intel/auto-round documents, vLLM quantization/inc, and the
configurations in tests/unit/lint/verdicts.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from sparkops.models.geometry import Geometry

PLAIN: Mapping[str, float] = {"bf16": 2, "fp32": 4, "fp8": 1, "int8": 1, "nvfp4": 4.5 / 8, "mxfp4": 4.25 / 8}
"""Bytes per parameter, block scales included; `intB-gG`: B bits and 16 bits of scale for each G."""
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


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a checkpoint is quantised: `quant_method` of its config.json ("" for none), its algorithm, bits, group size.

    `formats` names the format of the parts that are not stored in the model's own type; `ignored` what the
    configuration excludes, in its own words.
    """

    method: str = ""
    algorithm: str = ""
    bits: int = 16
    group_size: int = 0
    formats: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def bytes_per_parameter(word: str) -> float:
    """Bytes that one parameter of a format takes, its scale included. Raises ValueError for another word."""
    if word in PLAIN:
        return PLAIN[word]
    match = re.fullmatch(r"int([2-8])-g(\d+)", word)
    if match is None or int(match[2]) == 0:
        raise ValueError(f"{word!r} is no format; known: {', '.join(PLAIN)}, int4-g128")
    return (int(match[1]) + 16 / int(match[2])) / 8


def own_format(dtype: str) -> str:
    """The format of what is not quantised in a model of that type."""
    return "fp32" if dtype in ("float32", "float") else "bf16"


def part_bytes(geometry: Geometry, formats: Mapping[str, str]) -> dict[str, float]:
    """Bytes of each part of the weights, over all ranks."""
    own = own_format(geometry.dtype)
    return {part: count * bytes_per_parameter(formats.get(part, own)) for part, count in geometry.parameters.items()}


def of_config(config: Mapping[str, Any]) -> Quantisation:
    """The quantisation that a config.json declares; none where it has no `quantization_config`."""
    text = config.get("text_config")
    content = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, Mapping) else {}
    )
    if not isinstance(content, Mapping) or not content:
        return Quantisation()
    weights = _weights(content)
    method = str(content.get("quant_method", "")).lower()
    word = _format(method, content, weights)
    ignored = _ignored(content)
    own = _own_bits(content)
    formats = {}
    for part, module in MODULES.items():
        exception = next((own[name] for name in own if _named(name, module)), None)
        if exception is not None:
            if 2 <= exception <= 8:
                formats[part] = word if word.startswith(f"int{exception}") else f"int{exception}-g128"
        elif word and not _left_out(part, module, content, ignored):
            formats[part] = word
    return Quantisation(
        method=method,
        algorithm=str(content.get("quant_algo", "")),
        bits=_whole(content.get("bits", weights.get("num_bits", 8 if method == "fp8" else 16)), 16),
        group_size=_whole(content.get("group_size", weights.get("group_size")), 0),
        formats=formats,
        ignored=ignored,
    )


def _weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights' description of the first group of compressed-tensors and ModelOpt."""
    groups = content.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            return weights
    return {}


def _format(method: str, content: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    if "NVFP4" in str(content.get("quant_algo", "")).upper() or "nvfp4" in str(content.get("format", "")):
        return "nvfp4"
    if method in ("mxfp4", "gpt_oss_mxfp4"):
        return "mxfp4"
    if method in ("fp8", "fbgemm_fp8") or str(content.get("quant_algo", "")).upper().startswith("FP8"):
        return "fp8"
    bits = _whole(content.get("bits", weights.get("num_bits")), 0)
    if weights.get("type") == "float" and bits == 8:
        return "fp8"
    group = _whole(content.get("group_size", weights.get("group_size")), 0)
    if not 2 <= bits <= 8:
        return ""
    return f"int{bits}-g{group}" if group > 0 else ("int8" if bits == 8 else f"int{bits}-g128")


def _whole(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _ignored(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Every exclusion, in the spellings of the methods: lists of names, globs, `re:` and GPTQ's `-:`."""
    names: list[str] = []
    for key in ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules"):
        listed = content.get(key)
        names += [str(each) for each in listed] if isinstance(listed, list) else []
    dynamic = content.get("dynamic")
    for pattern in dynamic if isinstance(dynamic, Mapping) else ():
        if str(pattern).startswith("-:"):
            names.append(f"re:{str(pattern)[2:]}")
    return tuple(names)


def _own_bits(content: Mapping[str, Any]) -> dict[str, int]:
    """AutoRound's exceptions: a module's name and its bits."""
    extra = content.get("extra_config")
    if not isinstance(extra, Mapping):
        return {}
    return {str(name): _whole(each.get("bits"), 16) for name, each in extra.items() if isinstance(each, Mapping)}


def _left_out(part: str, module: str, content: Mapping[str, Any], ignored: Iterable[str]) -> bool:
    if part == "head" and not content.get("lm_head") and not content.get("quant_lm_head"):
        return True
    blocks = content.get("block_name_to_quantize")
    if isinstance(blocks, str) and not any(module.startswith(each.strip()) for each in blocks.split(",")):
        return True
    return any(_named(name, module) for name in ignored)


def _named(name: str, module: str) -> bool:
    """Whether an exclusion means this tensor: a pattern, a glob, or (part of) its name."""
    if name.startswith("re:"):
        try:
            return re.match(name[3:], module) is not None
        except re.error:
            return False
    if "*" in name:
        return fnmatchcase(module, name)
    return module == name or module.startswith(f"{name}.") or f".{name}." in f".{module}."
