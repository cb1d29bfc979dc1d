"""Writes the page of an engine version from its wheel: `python -m tools.wheel_page WHEEL [BASE] > VERSION.yml`.

BASE is the listed version from which the page differs (the newest below the wheel's, where it is left out). Nothing of
the wheel is imported or run: its Python files are read as text, so neither torch nor a GPU is needed. Names, flags,
values and configurations come from the wheel; laws (`behaviour`), attention and quantisation tables are the base's, and
are listed on standard error: they are to be proven by running the version.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparkops.models.architecture import expressions
from sparkops.models.engine import versions
from sparkops.models.engine_pages import alphabetical, engine_content, version_key
from tools.engine_page import page
from tools.wheel_configurations import Configurations
from tools.wheel_flags import CommandLine, Flag
from tools.wheel_names import connector_words, moe_words, names, quantization_words
from tools.wheel_refusals import refusals
from tools.wheel_source import UNKNOWN, Wheel
from tools.wheel_types import ANY

LAWS = ("attention", "attention_refused", "quantization", "load_formats_missing", "behaviour")
"""What running the version shows, and reading it does not."""

MADE_OF_FLAGS = ("ParallelConfig", "ObservabilityConfig", "SchedulerConfig", "CacheConfig")
"""Configurations that every start makes of flags of the same names."""

WORDS_OF = {
    "attention_backends": "AttentionBackendEnum",
    "kv_cache_dtypes": "CacheDType",
    "speculative_methods": "SpeculativeMethod",
}
"""Lists of the page that are types of fields."""


def content(wheel: Wheel, base: Mapping[str, Any]) -> dict[str, Any]:
    """The complete content of the wheel's version; what only running it would show is the base's."""
    line = CommandLine(wheel)
    flags = line.flags()
    configuration = wheel.module("vllm.config")
    for name in ("SpeculativeConfig", "QuantizationConfigArgs"):
        found = configuration.find(name) if configuration is not None else None
        if found is not None and isinstance(found[1], ast.ClassDef):
            line.reader.types.classes.setdefault(name, (found[0], found[1]))
    read = line.reader.read()
    values = _values(flags)
    reached = _reached(values, read)
    tables = {**quantization_words(wheel), **moe_words(wheel), **connector_words(wheel)}
    words = {**read.words, **tables}
    return {
        **base,
        "version": wheel.metadata["Version"].partition("+")[0],
        "flags": _flags(flags),
        "choices": _choices(flags, base),
        "defaults": _defaults(flags, base),
        "short": {short: each.name for each in sorted(flags, key=lambda flag: flag.short) for short in each.short},
        "inverse": _inverse(wheel, flags),
        "deprecated": alphabetical({each.name for each in flags if each.deprecated}),
        **{key: alphabetical(set(words[name].split())) for key, name in WORDS_OF.items()},
        "behaviour": {**base["behaviour"], "json_sizes": _takes_sizes(wheel)},
        **names(wheel),
        "values": values,
        "configurations": {name: read.fields[name] for name in sorted(reached)},
        "refusals": {
            **{name: read.refused[name] for name in sorted(reached) if name in read.refused},
            **_of_flags(wheel, line, {each.name for each in flags}),
        },
        "words": {name: words[name] for name in sorted(words) if name in tables or _used(name, values, read, reached)},
    }


def _flags(flags: list[Flag]) -> dict[str, str]:
    kinds = ("pair", "switch", "integer", "size", "length", "decimal", "several", "integers", "json", "json_or_text",
             "text", "loose")  # fmt: skip
    found = {kind: alphabetical({each.name for each in flags if each.kind == kind}) for kind in kinds}
    return {kind: words for kind, words in found.items() if words}


def _choices(flags: list[Flag], base: Mapping[str, Any]) -> dict[str, str]:
    """The choices; those that the version computes are the base's."""
    found = {each.name: " ".join(each.choices) for each in flags if each.choices and not each.computed}
    computed = {
        each.name: base["choices"][each.name] for each in flags if each.computed and each.name in base["choices"]
    }
    return dict(sorted({**found, **computed}.items()))


def _defaults(flags: list[Flag], base: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that are plain values; one that only running would tell is the base's."""
    found: dict[str, Any] = {}
    for each in flags:
        value = base["defaults"].get(each.name) if each.default is UNKNOWN else each.default
        if isinstance(value, (bool, int, float, str)) and value != "":
            found[each.name] = value
    return dict(sorted(found.items()))


def _values(flags: list[Flag]) -> dict[str, str]:
    """The types of values, where they say more than how the flag is read."""
    plain = ("bool", "int", "float", "str", "Any", "other")
    found = {}
    for each in flags:
        members = [part for part in each.value.split(" | ") if part != "None"]
        judged = any(part not in plain and not part.startswith("list[Any]") for part in members) and ANY not in members
        if judged and each.kind not in ("pair", "switch", "loose"):
            found[each.name] = each.value
    return dict(sorted(found.items()))


def _reached(values: Mapping[str, str], read: Configurations) -> set[str]:
    """The configurations that a value can be, and those inside them."""
    wanted = {name for text in values.values() for name in read.fields if _names(name, text)}
    while (
        more := {
            inner
            for name in wanted
            for text in read.fields[name].values()
            for inner in read.fields
            if _names(inner, text)
        }
        - wanted
    ):
        wanted |= more
    return wanted


def _used(name: str, values: Mapping[str, str], read: Configurations, reached: set[str]) -> bool:
    texts = [*values.values(), *(text for each in reached for text in read.fields[each].values())]
    return any(_names(name, text) for text in texts)


def _names(name: str, text: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(text.partition(" = ")[0])))


def _of_flags(wheel: Wheel, line: CommandLine, flags: set[str]) -> dict[str, dict[str, str]]:
    """What the configurations refuse that are made of flags: the conditions over fields that are flags by name."""
    configuration = wheel.module("vllm.config")
    found: dict[str, str] = {}
    for name in MADE_OF_FLAGS:
        place = configuration.find(name) if configuration is not None else None
        if place is not None and isinstance(place[1], ast.ClassDef):
            conditions = refusals(place[0], place[1], line.reader.fields(place[0], place[1]))
            found |= {
                condition: words
                for condition, words in conditions.items()
                if all(each.replace("_", "-") in flags for each in expressions.names(condition))
            }
    return {"serve": found} if found else {}


def _takes_sizes(wheel: Wheel) -> bool:
    """Whether sizes may stand in JSON."""
    module = wheel.module("vllm.engine.arg_utils")
    return module is not None and "_expand_json_human_readable_numbers" in module.names


def _inverse(wheel: Wheel, flags: list[Flag]) -> dict[str, str]:
    """`--disable-x` for `--enable-x` and the other way round, where the version pairs them."""
    module = wheel.module("vllm.utils.argparse_utils")
    if module is None or "EnableDisableAction" not in module.names:
        return {}
    pairs = {"enable-": "disable-", "disable-": "enable-"}
    found = {
        inverse + each.name.removeprefix(prefix): each.name
        for each in flags
        for prefix, inverse in pairs.items()
        if each.kind == "pair" and each.name.startswith(prefix)
    }
    return dict(sorted(found.items()))


def main(arguments: list[str]) -> None:
    """Prints the page of a wheel."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheel_page", description=__doc__)
    parser.add_argument("wheel", type=Path, help="the wheel's file")
    parser.add_argument("base", nargs="?", help="the listed version to differ from")
    given = parser.parse_args(arguments)
    wheel = Wheel(given.wheel)
    version = wheel.metadata["Version"].partition("+")[0]
    earlier = [each for each in versions() if version_key(each) < version_key(version)]
    base = given.base or earlier[-1]
    sys.stdout.write(page(base, content(wheel, engine_content(base, None))))
    sys.stderr.write(f"taken from {base}, to be proven by running {version}: {', '.join(LAWS)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
