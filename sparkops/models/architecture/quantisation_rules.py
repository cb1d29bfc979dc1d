"""Which module of a checkpoint its `quantization_config` stores in which format, matched as the engine matches names.

It must not know sizes. Sources: vLLM 0.32 model_executor/layers/quantization (compressed_tensors, modelopt, fp8,
auto_gptq, auto_awq, inc, mxfp4) and their `is_layer_skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

PREFIXES = ("model.language_model.", "language_model.model.", "model.", "backbone.", "language_model.")
"""What stands before a layer's name in one checkpoint or another."""
FULL = ("model.", "model.language_model.", "")
"""The prefixes with which a name is tried against a regular expression."""
EXCLUSIONS = ("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules")
"""The keys that hold exclusions; the engine's FP8 reads no `ignore`, which may be meant for another method."""
CLASSES = ("Linear", "FusedMoE", "RoutedExperts", "MoE")
EXPERT = (
    "experts",
    "experts.0.gate_proj",
    "experts.0.up_proj",
    "experts.0.down_proj",
    "experts.0.w1",
    "experts.gate_up_proj",
)
METHODS = ("fp8", "fbgemm_fp8", "modelopt", "modelopt_fp4", "compressed-tensors", "gptq", "gptq_marlin", "awq",
           "awq_marlin", "auto-round", "inc", "mxfp4", "gpt_oss_mxfp4", "deepseek_v4_fp8")  # fmt: skip
"""The methods whose formats are known."""


def canonical(name: str) -> str:
    """A module's name without what stands before the layers."""
    prefix = next((each for each in PREFIXES if name.startswith(each)), "")
    return name[len(prefix) :]


class Names:
    """A list of names, globs and `re:` patterns, as exclusions and targets are written."""

    def __init__(self, written: Iterable[str]) -> None:
        plain, globs, patterns = [], [], []
        for each in written:
            if each.startswith("re:"):
                patterns.append(each[3:])
            elif "*" in each:
                globs.append(translate(canonical(each)))
            else:
                plain.append(canonical(each))
        self.exact = frozenset(each for each in plain if "layers." in each)
        self.short = tuple(f".{each}." for each in plain if "layers." not in each)
        self.globs = _joined(globs)
        self.patterns = _joined(patterns)

    def mean(self, name: str) -> bool:
        """Whether one of them means the module of that canonical name, or a module that it is in."""
        if self.exact:
            inner = name
            while inner:
                if inner in self.exact:
                    return True
                inner = inner.rpartition(".")[0]
        if any(each in f".{name}." for each in self.short):
            return True
        if self.globs is not None and (self.globs.match(name) or self.globs.match(f"model.{name}")):
            return True
        return self.patterns is not None and any(self.patterns.match(prefix + name) for prefix in FULL)


def _joined(patterns: list[str]) -> re.Pattern[str] | None:
    kept = []
    for each in patterns:
        try:
            re.compile(each)
        except re.error:
            continue
        kept.append(f"(?:{each})")
    return re.compile("|".join(kept)) if kept else None


@dataclass(frozen=True)
class Rules:
    """The rules of one `quantization_config` (`content`); `expert_dtype` is what config.json says of the experts."""

    content: Mapping[str, object]
    expert_dtype: str = ""

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.content.get("quant_method", "")).lower()

    @cached_property
    def unknown(self) -> str:
        """Why nothing is known of the bytes; "" where they are."""
        if self.method not in METHODS:
            return f"how many bytes quant_method {self.method!r} stores is not known"
        if not self.groups and not self.word and not self.by_layer:
            return f"the quantization_config of {self.method} names no bits"
        return ""

    def format(self, names: Iterable[str], part: str) -> str:
        """The format of a module of that part under its names; "" for the model's own type."""
        tried = [canonical(each) for name in names for each in ([name] if part != "experts" else _expert(name))]
        if self.own:
            found = next((self.own[each] for each in self.own if any(Names([each]).mean(name) for name in tried)), None)
            if found is not None:
                return _bits(self.word, found) if 2 <= found <= 8 else ""
        if any(self.ignored.mean(name) for name in tried) or not self._inside(tried):
            return ""
        if self.by_layer:
            return next((word for name in tried if (word := self._of_layer(name))), self._expert_word(part))
        if part in ("experts", "mtp_experts") and (word := self._expert_word(part)):
            return word
        if self.method in ("mxfp4", "gpt_oss_mxfp4"):
            return "mxfp4" if part == "experts" else ""
        if part == "head" and not self._head(tried):
            return ""
        if self.groups:
            return next((word for targets, word, linear in self.groups if linear or any(map(targets.mean, tried))), "")
        return self.word

    @cached_property
    def ignored(self) -> Names:
        """Every exclusion: lists of names, globs, `re:` and GPTQ's `-:`."""
        return Names(self.exclusions)

    @cached_property
    def exclusions(self) -> tuple[str, ...]:
        """The exclusions as they are written."""
        names: list[str] = []
        for key in EXCLUSIONS if self.method not in ("fp8", "deepseek_v4_fp8") else EXCLUSIONS[1:3]:
            listed = self.content.get(key)
            names += [str(each) for each in listed] if isinstance(listed, list) else []
        dynamic = self.content.get("dynamic")
        for pattern in dynamic if isinstance(dynamic, Mapping) else ():
            if str(pattern).startswith("-:"):
                names.append(f"re:{str(pattern)[2:]}")
        return tuple(names)

    @cached_property
    def own(self) -> Mapping[str, int]:
        """AutoRound's exceptions: a module's name and its bits."""
        extra = self.content.get("extra_config")
        entries = extra.items() if isinstance(extra, Mapping) else ()
        return {str(name): _whole(each.get("bits"), 16) for name, each in entries if isinstance(each, Mapping)}

    @cached_property
    def by_layer(self) -> Mapping[str, str]:
        """The format of each module that ModelOpt's mixed precision lists."""
        listed = self.content.get("quantized_layers") if self.method.startswith("modelopt") else None
        entries = listed.items() if isinstance(listed, Mapping) else ()
        return {
            canonical(str(n)): algorithm(str(each.get("quant_algo", "")))
            for n, each in entries
            if isinstance(each, Mapping)
        }

    @cached_property
    def groups(self) -> tuple[tuple[Names, str, bool], ...]:
        """compressed-tensors' groups: targets, format, whether they mean every linear layer; the named ones first."""
        if self.method != "compressed-tensors":
            return ()
        groups, found = self.content.get("config_groups"), []
        for group in groups.values() if isinstance(groups, Mapping) else ():
            weights = group.get("weights") if isinstance(group, Mapping) else None
            if not isinstance(weights, Mapping):
                continue
            targets = [str(each) for each in group.get("targets") or ()]
            word = _of_weights(weights, str(group.get("format") or self.content.get("format") or ""))
            found.append(
                (Names(each for each in targets if each not in CLASSES), word, any(each in CLASSES for each in targets))
            )
        return tuple(sorted(found, key=lambda each: each[2]))

    @cached_property
    def word(self) -> str:
        """The format where nothing names another."""
        content, method = self.content, self.method
        if method in ("mxfp4", "gpt_oss_mxfp4"):
            return "mxfp4"
        if algo := str(content.get("quant_algo") or ""):
            return algorithm(algo) or ("fp8" if method in ("fp8", "deepseek_v4_fp8") else "")
        if method in ("fp8", "fbgemm_fp8", "deepseek_v4_fp8"):
            return "fp8"
        if self.groups:
            return self.groups[-1][1]
        groups = content.get("config_groups")
        first: object = next(iter(groups.values()), {}) if isinstance(groups, Mapping) else {}
        weights = first.get("weights") if isinstance(first, Mapping) else None
        return _of_weights(weights, "") if isinstance(weights, Mapping) else _of_weights(content, "")

    def _head(self, tried: list[str]) -> bool:
        if self.content.get("lm_head") or self.content.get("quant_lm_head") or self.method.startswith("modelopt"):
            return True
        return any(targets.mean(name) for targets, _, _ in self.groups for name in tried)

    def _inside(self, tried: list[str]) -> bool:
        blocks = self.content.get("block_name_to_quantize")
        if not isinstance(blocks, str):
            return True
        within = [canonical(f"{each.strip()}.") for each in blocks.split(",")]
        return any(name.startswith(each) for name in tried for each in within) or tried[0] in ("lm_head", "head")

    def _of_layer(self, name: str) -> str:
        while name:
            if name in self.by_layer:
                return self.by_layer[name]
            name = name.rpartition(".")[0]
        return ""

    def _expert_word(self, part: str) -> str:
        if part not in ("experts", "mtp_experts"):
            return ""
        return algorithm(str(self.content.get("moe_quant_algo") or "")) or (
            "mxfp4" if self.expert_dtype == "fp4" else ""
        )


def _expert(name: str) -> list[str]:
    """The names under which the experts of a module can be meant."""
    start, _, _ = name.rpartition("experts.")
    return [start + each for each in EXPERT]


def algorithm(name: str) -> str:
    """The format that ModelOpt means by `quant_algo`; "" for another."""
    upper = name.upper()
    if "NVFP4" in upper:
        return "nvfp4"
    if upper.startswith("MXFP4"):
        return "mxfp4"
    if upper.startswith(("FP8", "MXFP8")):
        return "fp8"
    return "int4-g128" if upper.startswith(("W4A16", "W4A8", "INT4")) else ("int8" if upper.startswith("INT8") else "")


def _of_weights(weights: Mapping[str, object], form: str) -> str:
    bits = _whole(weights.get("num_bits", weights.get("bits")), 0)
    group = _whole(weights.get("group_size"), 0)
    if bits == 4 and (weights.get("type") == "float" or "nvfp4" in form or "mxfp4" in form):
        return "mxfp4" if group == 32 or "mxfp4" in form else "nvfp4"
    if bits == 8 and weights.get("type") == "float":
        return "fp8"
    return _bits(f"int{bits}-g{group}" if group > 0 else "", bits) if 2 <= bits <= 8 else ""


def _bits(word: str, bits: int) -> str:
    if word.startswith(f"int{bits}"):
        return word
    return "int8" if bits == 8 and "-g" not in word else f"int{bits}-g128"


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
