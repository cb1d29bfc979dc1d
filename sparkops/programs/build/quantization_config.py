"""What a checkpoint's configuration says about its quantization, before a repack (GPTQ, AutoRound) and after it.

Sources: auto-round 0.16.1 (`export_to_autoround/export.py`: which packing stores which zero), vllm 0.33.0
(`inc/config_parser.py`: how `extra_config` is looked up; `compressed_tensors.py`, `utils.py`: how targets match), and
compressed-tensors 0.17.0 and 0.20.0 (`quant_config.py`, `quant_scheme.py`). It must not know tensors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparkops.core.messages import Refused
from sparkops.programs.build.autoround_config import METHODS

VERSION = "0.17.0"
"""Of compressed-tensors: the one that vllm 0.33.0 pins."""
_STORED_LESS_ONE = {
    "auto_round:auto_gptq": True, "auto_gptq": True, "gptq": True, "auto_round": False, "auto_round:gptqmodel": False,
    "gptq_v2": False,
}  # fmt: skip
"""Whether a packing stores the zero point less one, as the first GPTQ format does."""
_DOT = r"\."
_REGEX = re.compile(r"[*+?^$()\[\]{}|\\]")
_ROOTS = (
    ("model.language_model.", r"(?:model\.language_model|language_model\.model|model)\."),
    ("model.visual.", r"(?:model\.)?visual\."),
    ("model.", r"(?:model\.language_model|language_model\.model|model)\."),
    ("lm_head", r"(?:language_model\.)?lm_head"),
)
"""How names begin in the checkpoint, and how they may begin where they are looked for.

vLLM renames layer names that are given in full to its own (`WeightsMapper`: `model.language_model.` becomes
`language_model.model.`), but leaves patterns alone, and `lm_head`, which has no dot; so the patterns fit both.
"""
_WHOLE = (("mtp.", r"re:mtp\."), ("model.visual.", r"re:(?:model\.)?visual\."))
"""Parts that one pattern tells of when nothing in them is quantized."""


class Scheme(NamedTuple):
    """How a layer is quantized: `kind` int or float, bits, and inputs in a group (-1: a row's all; floats: a block)."""

    kind: str
    bits: int
    group: int

    @property
    def packed(self) -> bool:
        return self.kind == "int"

    @property
    def description(self) -> str:
        if not self.packed:
            return f"FP{self.bits} in blocks of {self.group}"
        return f"INT{self.bits} " + ("by rows" if self.group == -1 else f"in groups of {self.group}")

    def as_group(self, targets: list[str]) -> dict[str, object]:
        """A member of `config_groups`."""
        weights: dict[str, object] = {"num_bits": self.bits, "type": self.kind, "symmetric": True, "dynamic": False}
        inputs = None
        if not self.packed:
            weights |= {"strategy": "block", "block_structure": [self.group, self.group]}
            inputs = {"num_bits": self.bits, "type": "float", "symmetric": True, "dynamic": True, "strategy": "group",
                      "group_size": self.group}  # fmt: skip
        elif self.group == -1:
            weights |= {"strategy": "channel"}
        else:
            weights |= {"strategy": "group", "group_size": self.group}
        return {
            "targets": targets,
            "weights": weights,
            "input_activations": inputs,
            "output_activations": None,
            "format": "pack-quantized" if self.packed else "float-quantized",
        }


class LayerSettings:
    """What the configuration sets for integer layers: bits and groups, per layer, and how zeros are stored."""

    def __init__(
        self, common: Mapping[str, object], overrides: Mapping[str, object], *, less_one: bool, gptq: bool
    ) -> None:
        self.common, self.less_one = common, less_one
        own: dict[str, dict[str, object]] = {
            name: value for name, value in overrides.items() if isinstance(value, dict)
        }
        self.exact = {} if gptq else own
        if gptq:
            own = {"^(?:" + name.removeprefix("+:") + ")": value for name, value in own.items() if name[:2] != "-:"}
        self.patterns = [(_compiled(name), value) for name, value in own.items() if _REGEX.search(name)]

    def of(self, name: str) -> tuple[int, int]:
        """Bits and group size (-1: one for a whole row) of a layer. Raises Refused for what can't be repacked."""
        values = {**self.common, **{key: value for key, value in self._override(name).items() if value is not None}}
        bits, group = values.get("bits"), values.get("group_size")
        if bits not in (4, 8):
            raise Refused.of("repack-bits-unsupported", layer=name, bits=bits)
        if type(group) is not int or not (group == -1 or group > 0):
            raise Refused.of("repack-group-size-invalid", layer=name, group_size=group)
        if values.get("sym") is not True:
            raise Refused.of("repack-not-symmetric", layer=name, sym=values.get("sym"))
        if values.get("desc_act"):
            raise Refused.of("repack-activation-order", layer=name)
        if str(values.get("data_type") or "int") != "int":
            raise Refused.of("repack-data-type-unsupported", layer=name, data_type=values["data_type"])
        return int(bits), group

    def _override(self, name: str) -> Mapping[str, object]:
        """What is set for a layer alone: by its name, by the end of it, or by a pattern, in this order."""
        ends = [name] + [name[dot + 1 :] for dot, sign in enumerate(name) if sign == "."] if self.exact else []
        for end in ends:
            if end in self.exact:
                return self.exact[end]
        return next((value for pattern, value in self.patterns if pattern.search(name)), {})

    def stored_zero(self, bits: int) -> int:
        """The number that `qzeros` must hold everywhere."""
        return (1 << (bits - 1)) - self.less_one


def layer_settings(config: Mapping[str, object]) -> LayerSettings:
    """Out of a quantization_config. Raises Refused where it tells of something that can't be repacked."""
    if not config:
        raise Refused.of("repack-not-quantized")
    method = str(config.get("quant_method") or "").lower()
    if method == "compressed-tensors":
        raise Refused.of("repack-already-compressed-tensors")
    gptq = method.startswith("gptq")
    if not gptq and method not in METHODS:
        raise Refused.of("repack-method-unsupported", method=method or "(not set)")
    key, usual = ("checkpoint_format", "gptq") if gptq else ("packing_format", "auto_round:auto_gptq")
    packing = str(config.get(key) or usual)
    if packing not in _STORED_LESS_ONE:
        raise Refused.of("repack-packing-unsupported", packing=packing)
    overrides = config.get("dynamic" if gptq else "extra_config") or {}
    if not isinstance(overrides, dict):
        raise Refused.of("repack-exceptions-invalid")
    common = {key: config.get(key) for key in ("bits", "group_size", "desc_act", "data_type")}
    common["sym"] = config.get("sym", True)
    return LayerSettings(common, overrides, less_one=_STORED_LESS_ONE[packing], gptq=gptq)


def _compiled(pattern: str) -> "re.Pattern[str]":
    try:
        return re.compile(pattern)
    except re.error as error:
        raise Refused.of("repack-pattern-invalid", pattern=pattern[:120], text=str(error)) from None


def quantization_config(schemes: Mapping[str, Scheme | None]) -> dict[str, object]:
    """The compressed-tensors one of a model whose layers are quantized so; None: left in 16 bits."""
    targets = patterns(schemes)
    ignore = targets.pop(None, [])
    groups = {
        f"group_{number}": scheme.as_group(found) for number, (scheme, found) in enumerate(targets.items()) if scheme
    }
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignore,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        "version": VERSION,
    }


def patterns(schemes: Mapping[str, Scheme | None]) -> dict[Scheme | None, list[str]]:
    """Patterns for the layers of each scheme that fit these and none of the others.

    Layers that differ by numbers alone share one pattern; where some of them are quantized otherwise, the first
    number (the decoder layer's) is spelled out, and every number where that doesn't tell them apart either.
    """
    quantized = [name for name, scheme in schemes.items() if scheme]
    whole = {start: pattern for start, pattern in _WHOLE if not any(name.startswith(start) for name in quantized)}
    kinds: dict[str, dict[Scheme | None, list[str]]] = {}
    for name, scheme in schemes.items():
        start = next((each for each in whole if name.startswith(each)), None)
        kind = start or ".".join("#" if word.isdecimal() else word for word in name.split("."))
        kinds.setdefault(kind, {}).setdefault(scheme, []).append(name)
    found: dict[Scheme | None, list[str]] = {}
    for kind, by_scheme in kinds.items():
        if kind in whole:
            found.setdefault(None, []).append(whole[kind])
            continue
        spelled = _numbers_to_spell(by_scheme)
        for scheme, names in by_scheme.items():
            found.setdefault(scheme, []).extend(_patterns(names, spelled))
    return found


def _numbers_to_spell(by_scheme: Mapping[Scheme | None, list[str]]) -> int:
    """How many of the numbers in names of one kind tell the schemes apart: none, the first, or all (-1)."""
    if len(by_scheme) == 1:
        return 0
    firsts = [{_numbers(name)[0] for name in names} for names in by_scheme.values()]
    return 1 if sum(map(len, firsts)) == len(set().union(*firsts)) else -1


def _patterns(names: list[str], spelled: int) -> list[str]:
    if spelled == -1:
        return [_pattern(name, _numbers(name)) for name in names]
    if spelled == 0:
        return [_pattern(names[0], [])]
    firsts = sorted({_numbers(name)[0] for name in names}, key=int)
    return [_pattern(names[0], [firsts[0] if len(firsts) == 1 else f"(?:{'|'.join(firsts)})"])]


def _pattern(name: str, numbers: Sequence[str]) -> str:
    """One that fits a name with these numbers in place of its first ones, and any in place of the further."""
    start, head = next((each for each in _ROOTS if name.startswith(each[0])), ("", ""))
    left = iter(numbers)
    words = [next(left, r"\d+") if word.isdecimal() else re.escape(word) for word in name[len(start) :].split(".")]
    return f"re:{head}{_DOT.join(words)}$"


def _numbers(name: str) -> list[str]:
    return [word for word in name.split(".") if word.isdecimal()]
