"""What one version of the engine knows by name, and its laws: the typed view of `knowledge/engines/`.

A new version is a page of data: a rule asks for a law by its name and never compares versions. This module must not
know a model, a line or a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.models import knowledge_file
from sparkops.models.engine_pages import engine_content, engine_files, version_key

PAIR, SWITCH, INTEGER, SIZE, LENGTH = "pair", "switch", "integer", "size", "length"
TAG_VERSION = re.compile(r"(?:^|[^0-9A-Za-z.])v?(\d\.\d+\.\d+|0\.\d+)(?![0-9])")
"""The version in a tag; what has two digits in front, as 26.01.1 and 13.0.1, counts something else."""
OLDEST = (0, 6)
"""Versions before the engine that serves today; a lower number in a tag counts something else."""

DECIMAL, SEVERAL, INTEGERS, JSON, JSON_OR_TEXT, TEXT, LOOSE = (
    "decimal",
    "several",
    "integers",
    "json",
    "json_or_text",
    "text",
    "loose",
)


@dataclass(frozen=True)
class Engine:
    """A version: names, and laws under `behaviour`. Flags are named without dashes in front.

    `flags` maps each flag to how it is read: pair (--x, --no-x), switch (no value), integer, size (also 8k, 20G),
    length (also auto), decimal, several (words), integers, json, json_or_text, text, loose (of unknown shape).
    `inverse` maps a flag to the one that it turns off; `exact`: whether this very version is listed.
    `attention` maps the backends that may serve a model to the KV types that they take on a GB10, in its order.
    `attention_refused` maps the backends that no such model gets on a GB10 to the engine's words.
    `quantization` maps a checkpoint's method to what the engine makes of it.
    `values` maps flags to the types of their values, `configurations` those that are JSON to their fields, each with
    its type, `refusals` to conditions over their fields and the engine's words; `words` are the lists that types name.
    """

    version: str
    source: str
    asked: str
    flags: Mapping[str, str]
    choices: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, object]
    short: Mapping[str, str]
    inverse: Mapping[str, str]
    deprecated: frozenset[str]
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]
    architectures: frozenset[str]
    attention_backends: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    speculative_methods: tuple[str, ...]
    quantization_methods: tuple[str, ...]
    deprecated_quantization_methods: tuple[str, ...]
    load_formats: tuple[str, ...]
    load_formats_missing: tuple[str, ...]
    environment: frozenset[str]
    metrics: tuple[str, ...]
    attention: Mapping[str, tuple[str, ...]]
    attention_refused: Mapping[str, str]
    quantization: Mapping[str, str]
    behaviour: Mapping[str, object] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    configurations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    refusals: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether the version asked for is the one that is listed."""
        return self.version == self.asked

    @property
    def speculative_fields(self) -> tuple[str, ...]:
        """What --speculative-config takes."""
        return tuple(self.configurations.get("SpeculativeConfig", ()))

    @property
    def later(self) -> bool:
        """Whether the version asked for is older than all that are listed, so that a later one is used instead."""
        return version_key(self.asked)[:2] < version_key(self.version)[:2]

    @property
    def unsure_of_words(self) -> bool:
        """Whether a word that is not known here may be known to the version asked for."""
        return self.later or self.earlier

    @property
    def earlier(self) -> bool:
        """Whether an earlier version is used, which may lack words that the one asked for knows."""
        return version_key(self.asked)[:2] > version_key(self.version)[:2]

    def law(self, name: str) -> Any:
        """A law by its name. Raises InventoryError for an engine file that lacks it."""
        try:
            return self.behaviour[name]
        except KeyError:
            raise InventoryError.of(
                "engine-law-missing", where=f"knowledge/engines/{self.version}.yml", version=self.version, law=name
            ) from None


def engine(version: str, beside: Path | None = None) -> Engine:
    """The engine of that version; of an unlisted one (`exact` is false then) one that differs in the last number only,
    else the nearest earlier, else the oldest.

    A leading `v` and what follows the numbers (`+cu130`, `-aarch64`, `.dev3`, `rc1`) do not count. Raises
    InventoryError for a word that is no version.
    """
    wanted = version_key(version)
    if not wanted:
        raise InventoryError.of("engine-version-invalid", version=version)
    listed = versions(beside)
    alike = [each for each in listed if version_key(each)[:2] == wanted[:2]] or listed
    earlier = [each for each in alike if version_key(each) <= wanted]
    chosen = earlier[-1] if earlier else alike[0]
    clean = ".".join(str(number) for number in wanted)
    return _read(chosen, chosen if wanted == version_key(chosen) else clean, beside)


def versions(beside: Path | None = None) -> tuple[str, ...]:
    """The listed versions, oldest first."""
    return tuple(sorted(engine_files(beside), key=version_key))


def version_of_image(reference: str) -> str:
    """The version of vLLM that an image's tag names, like 0.26.0; "" where it names none.

    The tag of an image whose name does not begin with vllm counts another project's versions, unless it says vllm
    itself; a number below those of all listed versions is no engine's.
    """
    name, _, tag = reference.partition("@")[0].rpartition("/")[2].lower().partition(":")
    found = TAG_VERSION.search(tag.partition("vllm")[2]) or (name.startswith("vllm") and TAG_VERSION.search(tag))
    if not found or version_key(found[1]) < OLDEST:
        return ""
    return found[1]


def spans(kind: str, word: str, beside: Path | None = None) -> tuple[str, str] | None:
    """The first and the last listed version that know a word of a kind (`flags`, `tool_parsers`, …), if any."""
    holding = [each for each in versions(beside) if word in getattr(engine(each, beside), kind)]
    return (holding[0], holding[-1]) if holding else None


@cache
def _read(version: str, asked: str, beside: Path | None) -> Engine:
    content = engine_content(version, beside)
    with knowledge_file.in_shape_of("engine.schema.json", engine_files(beside)[version]):
        return _engine(content, asked)


def _engine(content: Mapping[str, Any], asked: str) -> Engine:
    lists = {name: tuple(str(content[name]).split()) for name in _WORDS}
    return Engine(
        version=content["version"],
        source=content["source"],
        asked=asked,
        flags={flag: kind for kind, flags in content["flags"].items() for flag in flags.split()},
        choices={flag: tuple(each.split()) for flag, each in content["choices"].items()},
        defaults=content["defaults"],
        short=content["short"],
        inverse=content.get("inverse", {}),
        deprecated=frozenset(content["deprecated"].split()),
        architectures=frozenset(content["architectures"].split()),
        environment=frozenset(content["environment"].split()),
        attention={name: tuple(each.split()) for name, each in content["attention"].items()},
        attention_refused=content["attention_refused"],
        quantization=content["quantization"],
        behaviour=content["behaviour"],
        values=content.get("values", {}),
        configurations=content.get("configurations", {}),
        refusals=content.get("refusals", {}),
        words={name: tuple(each.split()) for name, each in content.get("words", {}).items()},
        **lists,
    )


_WORDS: Iterable[str] = (
    "tool_parsers",
    "reasoning_parsers",
    "attention_backends",
    "kv_cache_dtypes",
    "speculative_methods",
    "quantization_methods",
    "deprecated_quantization_methods",
    "load_formats",
    "load_formats_missing",
    "metrics",
)
