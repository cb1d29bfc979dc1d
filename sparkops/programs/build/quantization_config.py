"""What a checkpoint's configuration says about its quantization, before a repack (GPTQ, AutoRound) and after it.

Sources: auto-round 0.16.1 (`export_to_autoround/export.py`: which packing stores which zero), vllm 0.33.0
(`inc/config_parser.py`: how `extra_config` is looked up; `compressed_tensors.py`, `utils.py`: how targets match), and
compressed-tensors 0.17.0 and 0.20.0 (`quant_config.py`, `quant_scheme.py`). It must not know tensors.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparkops.programs.build.gptq import METHODS
from sparkops.worker.calls import Refused

VERSION = "0.17.0"
"""Of compressed-tensors: the one that vllm 0.33.0 pins."""
HINT = "leave out the step `repack`, or take a base that it can take: AutoRound or GPTQ, symmetric, 4 or 8 bits"
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
    def words(self) -> str:
        if not self.packed:
            return f"FP{self.bits} in blocks of {self.group}"
        return f"INT{self.bits} " + ("by rows" if self.group == -1 else f"in groups of {self.group}")

    def as_group(self, targets: list[str]) -> dict[str, Any]:
        """A member of `config_groups`."""
        weights: dict[str, Any] = {"num_bits": self.bits, "type": self.kind, "symmetric": True, "dynamic": False}
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


class Declared:
    """What the base's configuration says of its integer layers: bits and groups, per layer, and how zeros are kept."""

    def __init__(self, common: Mapping[str, Any], overrides: Mapping[str, Any], *, less_one: bool, gptq: bool) -> None:
        self.common, self.less_one = common, less_one
        told: dict[str, dict[str, Any]] = {name: value for name, value in overrides.items() if isinstance(value, dict)}
        self.exact = {} if gptq else told
        if gptq:
            told = {"^(?:" + name.removeprefix("+:") + ")": value for name, value in told.items() if name[:2] != "-:"}
        self.patterns = [(_compiled(name), value) for name, value in told.items() if _REGEX.search(name)]

    def of(self, name: str) -> tuple[int, int]:
        """Bits and group size (-1: one for a whole row) of a layer. Raises Refused for what can't be repacked."""
        said = {**self.common, **{key: value for key, value in self._own(name).items() if value is not None}}
        bits, group = said.get("bits"), said.get("group_size")
        if bits not in (4, 8):
            raise Refused(f"{name} has {bits} bits by the configuration, and repack takes 4 and 8", hint=HINT)
        if type(group) is not int or not (group == -1 or group > 0):
            raise Refused(f"{name} has groups of {group!r} by the configuration", hint=HINT)
        if said.get("sym") is not True:
            raise Refused(f"{name} is not symmetric by the configuration (sym: {said.get('sym')})", hint=HINT)
        if said.get("desc_act"):
            raise Refused(f"{name} is in activation order by the configuration (desc_act)", hint=HINT)
        if str(said.get("data_type") or "int") != "int":
            raise Refused(f"{name} is of {said['data_type']} by the configuration, and has integers", hint=HINT)
        return int(bits), group

    def _own(self, name: str) -> Mapping[str, Any]:
        """What is said of a layer alone: by its name, by the end of it, or by a pattern, in this order."""
        ends = [name] + [name[dot + 1 :] for dot, sign in enumerate(name) if sign == "."] if self.exact else []
        for end in ends:
            if end in self.exact:
                return self.exact[end]
        return next((value for pattern, value in self.patterns if pattern.search(name)), {})

    def stored_zero(self, bits: int) -> int:
        """The number that `qzeros` must hold everywhere."""
        return (1 << (bits - 1)) - self.less_one


def declared_of(said: Mapping[str, Any]) -> Declared:
    """Out of a quantization_config. Raises Refused where it tells of something that can't be repacked."""
    if not said:
        raise Refused("config.json has no quantization_config, so nothing can be repacked", hint=HINT)
    method = str(said.get("quant_method") or "").lower()
    if method == "compressed-tensors":
        raise Refused("the checkpoint is in compressed-tensors' format already", hint="leave out the step `repack`")
    gptq = method.startswith("gptq")
    if not gptq and method not in METHODS:
        raise Refused(f"the checkpoint is quantized by {method or 'nobody that it names'}", hint=HINT)
    key, usual = ("checkpoint_format", "gptq") if gptq else ("packing_format", "auto_round:auto_gptq")
    packing = str(said.get(key) or usual)
    if packing not in _STORED_LESS_ONE:
        raise Refused(f"the checkpoint is packed as {packing}, which repack can't read", hint=HINT)
    overrides = said.get("dynamic" if gptq else "extra_config") or {}
    if not isinstance(overrides, dict):
        raise Refused("the quantization_config has exceptions that are no mapping", hint=HINT)
    common = {key: said.get(key) for key in ("bits", "group_size", "desc_act", "data_type")}
    common["sym"] = said.get("sym", True)
    return Declared(common, overrides, less_one=_STORED_LESS_ONE[packing], gptq=gptq)


def _compiled(pattern: str) -> "re.Pattern[str]":
    try:
        return re.compile(pattern)
    except re.error as error:
        what = f"the quantization_config has the pattern {pattern[:120]!r}, which is none: {error}"
        raise Refused(what, hint=HINT) from None


def quantization_config(schemes: Mapping[str, Scheme | None]) -> dict[str, Any]:
    """The compressed-tensors one of a model whose layers are quantized so; None: kept in 16 bits."""
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

    Layers that differ by numbers alone are told by one pattern; where some of them are quantized otherwise, the first
    number (the decoder layer's) is spelled out, and every number where that doesn't tell them apart either.
    """
    quantized = [name for name, scheme in schemes.items() if scheme]
    whole = {start: told for start, told in _WHOLE if not any(name.startswith(start) for name in quantized)}
    kinds: dict[str, dict[Scheme | None, list[str]]] = {}
    for name, scheme in schemes.items():
        start = next((each for each in whole if name.startswith(each)), None)
        kind = start or ".".join("#" if word.isdigit() else word for word in name.split("."))
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
    words = [next(left, r"\d+") if word.isdigit() else re.escape(word) for word in name[len(start) :].split(".")]
    return f"re:{head}{_DOT.join(words)}$"


def _numbers(name: str) -> list[str]:
    return [word for word in name.split(".") if word.isdigit()]
