"""Which module of a checkpoint its `quantization_config` stores in which format, matched as the engine matches names.

It must not know sizes. Sources: vLLM 0.32 model_executor/layers/quantization (compressed_tensors, modelopt, fp8,
auto_gptq, auto_awq, inc, mxfp4) and their `is_layer_skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cache, cached_property
from typing import Any

from sparkops.core.data import bundled
from sparkops.models import knowledge_file

PREFIXES = ("model.language_model.", "language_model.model.", "model.", "backbone.", "language_model.backbone.",
            "language_model.")  # fmt: skip
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
UNNAMED = ("no quant_method is declared (hf_quant_config.json counts with its producer, modelopt): "
           "the engine takes such a checkpoint for one that is not quantised")  # fmt: skip
"""Why nothing is known of a configuration without it (vLLM 0.33 transformers_utils/model_arch_config_convertor.py)."""
REGULAR = frozenset("*+?^$()[]{}|\\")
"""What makes a name of AutoRound's exceptions a regular expression."""
SCALED = 4096
"""Elements for each FP8 scale from which on its bytes don't count."""


@cache
def _described() -> Mapping[str, Any]:
    """What of a quantization_config is described."""
    return knowledge_file.read(bundled("knowledge") / "architectures" / "_quantisation.yml")


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
        return str(self.content.get("quant_method") or "").lower().replace("compressed_tensors", "compressed-tensors")

    @cached_property
    def unknown(self) -> str:
        """Why nothing is known of the bytes; "" where they are."""
        if not self.method:
            return UNNAMED
        if self.method not in METHODS:
            return f"how many bytes quant_method {self.method!r} stores is not known"
        if fault := next(self._faults(), None):
            return f"{fault} in the quantization_config is not described"
        if not self.groups and not self.word and not self.by_layer:
            return f"the quantization_config of {self.method} names no bits"
        return ""

    def _faults(self) -> Iterator[str]:
        """What nobody described: keys, kinds of weights, algorithms."""
        content, known = self.content, _described()
        yield from (
            key
            for key, value in content.items()
            if key not in known["keys"] and value is not None and not (key in known["empty"] and _says_nothing(value))
        )
        block = content.get("weight_block_size")
        if isinstance(block, list) and len(block) == 2 and _whole(block[0], 0) * _whole(block[1], 0) < SCALED:
            yield f"weight_block_size {block}"
        yield from self._algorithms()
        form = str(content.get("format") or "")
        for name, group in self._config_groups.items():
            yield from (f"config_groups.{name}.{key}" for key in group if key not in known["group"])
            weights = group.get("weights")
            if not isinstance(weights, Mapping):
                continue
            yield from (f"config_groups.{name}.weights.{key}" for key in weights if key not in known["weights"])
            if _of_weights(weights, str(group.get("format") or form)) is None:
                yield f"config_groups.{name}.weights ({weights.get('num_bits')} bits {weights.get('type', 'int')})"
        for name, own in {**self.own, **self.dynamic}.items():
            if _of_weights({**content, **own}, form) is None:
                yield f"what it says of {name}"
        plain = not self.groups and not content.get("quant_algo") and (content.get("bits") or content.get("w_bit"))
        if plain and _of_weights(content, form) is None:
            yield f"{plain} bits {content.get('data_type', 'int')}"

    def _algorithms(self) -> Iterator[str]:
        known = _described()["algorithms"]
        listed = self.content.get("quantized_layers")
        entries = [("", self.content), *(listed.items() if isinstance(listed, Mapping) else ())]
        for name, entry in entries if self.method.startswith("modelopt") else ():
            algo = str(entry.get("quant_algo") or "").upper() if isinstance(entry, Mapping) else "?"
            group = _whole(entry.get("group_size"), 16) if isinstance(entry, Mapping) else 16
            if algo and (algo not in known or (known[algo] == "nvfp4" and group != 16)):
                yield f"{name} {algo} in groups of {group}".strip()

    def format(self, names: Iterable[str], part: str) -> str:
        """The format of a module of that part under its names; "" for the model's own type."""
        tried = [canonical(each) for name in names for each in ([name] if part != "experts" else _expert(name))]
        overridden = self._overridden(tried)
        if overridden is not None:
            return _of_weights({**self.content, **overridden}, "") or ""
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
    def own(self) -> Mapping[str, Mapping[str, object]]:
        """AutoRound's exceptions: a module's name or a regular expression, and what is other there."""
        extra = self.content.get("extra_config")
        entries = extra.items() if isinstance(extra, Mapping) else ()
        return {str(name): each for name, each in entries if isinstance(each, Mapping)}

    @cached_property
    def dynamic(self) -> Mapping[str, Mapping[str, object]]:
        """GPTQ's exceptions that are quantised otherwise: a regular expression, and what is other there."""
        dynamic = self.content.get("dynamic")
        entries = dynamic.items() if isinstance(dynamic, Mapping) else ()
        return {
            f"re:{str(pattern).removeprefix('+:')}": each
            for pattern, each in entries
            if isinstance(each, Mapping) and not str(pattern).startswith("-:")
        }

    @cached_property
    def _exceptions(self) -> tuple[tuple[Names, Mapping[str, object]], ...]:
        written = [(f"re:.*(?:{name})" if set(name) & REGULAR else name, each) for name, each in self.own.items()]
        return tuple((Names([name]), each) for name, each in (*written, *self.dynamic.items()))

    def _overridden(self, tried: list[str]) -> Mapping[str, object] | None:
        """What is other for a module; None where nothing is."""
        return next((each for names, each in self._exceptions if any(map(names.mean, tried))), None)

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

    @property
    def _config_groups(self) -> Mapping[str, Mapping[str, object]]:
        groups = self.content.get("config_groups")
        entries = groups.items() if isinstance(groups, Mapping) else ()
        return {str(name): group for name, group in entries if isinstance(group, Mapping)}

    @cached_property
    def groups(self) -> tuple[tuple[Names, str, bool], ...]:
        """compressed-tensors' groups: targets, format, whether they mean every linear layer; the named ones first."""
        if self.method != "compressed-tensors":
            return ()
        found = []
        for group in self._config_groups.values():
            weights = group.get("weights")
            if not isinstance(weights, Mapping):
                continue
            listed = group.get("targets")
            targets = [str(each) for each in listed] if isinstance(listed, list) else []
            word = _of_weights(weights, str(group.get("format") or self.content.get("format") or "")) or ""
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
        weights = next((group.get("weights") for group in self._config_groups.values()), None)
        return _of_weights(weights if isinstance(weights, Mapping) else content, "") or ""

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


def _says_nothing(value: object) -> bool:
    return not value or (isinstance(value, Mapping) and value.get("format") == "dense")


def algorithm(name: str) -> str:
    """The format that ModelOpt means by `quant_algo`; "" for another."""
    return str(_described()["algorithms"].get(name.upper(), ""))


def _of_weights(weights: Mapping[str, object], form: str) -> str | None:
    """The format of weights as a group, or a whole configuration, describes them; "" for the model's own type, None for
    what is not known."""
    bits = _whole(weights.get("num_bits", weights.get("bits", weights.get("w_bit"))), 0)
    group = _whole(weights.get("group_size", weights.get("q_group_size")), 0)
    kind = str(weights.get("type") or weights.get("data_type") or "int")
    if bits == 4 and (kind == "float" or "nvfp4" in form or "mxfp4" in form):
        return {0: "nvfp4", 16: "nvfp4", 32: "mxfp4"}.get(group)
    if bits == 8 and kind == "float":
        return {32: "mxfp8"}.get(group) if 0 < group < 128 else "fp8"
    if kind != "int" or not (2 <= bits <= 8 or bits >= 16):
        return None
    if bits >= 16:
        return ""
    zeros = f"-z{bits}" if weights.get("symmetric") is False else ""
    return f"int{bits}-g{group}{zeros}" if group > 0 else "int8" if bits == 8 else f"int{bits}-channel"


def _whole(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise
