"""Recipes of vllm-project/recipes: a model, variants of it, features that may be on, and overrides by hardware.

Of variants the one that was asked for, else the one made for GB10, else the default; features that are opt-in stay off.
Source: models/*/*.yaml of vllm-project/recipes, 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sparkops.importing import lines
from sparkops.importing.recipe_draft import OFFICIAL, Choice, Draft
from sparkops.inventory.faults import suggest

HARDWARE = ("nvidia", "dgx_spark_gb10")
"""The keys under hardware_overrides that mean a Spark, the weaker first."""
FLAG_AND_VALUE = re.compile(r"--[\w-]+ [\w./-]+")
"""A flag and its value in one entry, which the project's page joins into one line with the others."""
ARGUMENTS, ENVIRONMENT = ("base_args", "args", "extra_args"), ("base_env", "env", "extra_env")


_WORDS = {"type": ["array", "null"], "items": {"type": ["string", "number"]}}
_PART: Mapping[str, object] = {
    "type": ["object", "null"],
    "properties": {
        **dict.fromkeys(ARGUMENTS, _WORDS),
        **dict.fromkeys(ENVIRONMENT, {"type": ["object", "null"]}),
        "model_id": {"type": "string"},
        "min_vllm_version": {"type": "string"},
        "docker_image": {"type": ["string", "object", "null"]},
        "hardware_overrides": {"$ref": "#/$defs/parts"},
        "modes": {"$ref": "#/$defs/parts"},
    },
}
SHAPE: Mapping[str, object] = {
    "type": "object",
    "properties": {
        "meta": {"type": "object"},
        "model": {"$ref": "#/$defs/part"},
        "features": {"$ref": "#/$defs/parts"},
        "variants": {"$ref": "#/$defs/parts"},
        "hardware_overrides": {"$ref": "#/$defs/parts"},
        "opt_in_features": {"type": ["array", "null"], "items": {"type": "string"}},
    },
    "$defs": {
        "part": _PART,
        "parts": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/part"}},
    },
}
"""What is read of such a file, as a JSON Schema."""


def read(content: Mapping[str, Any], name: str, choice: Choice) -> Draft:
    """The recipe for a Spark in such a file. Raises InventoryError for a variant that it lacks."""
    draft = Draft(name, "a recipe of vllm-project/recipes", choice)
    model, key = content["model"], _variant(draft, content.get("variants") or {})
    variant: Mapping[str, Any] = (content.get("variants") or {}).get(key) or {}
    parts = [model, *_features(draft, content, key), variant, *_overrides(content), *_overrides(variant)]
    draft.image = next((image for part in reversed(parts) if (image := _image(part))), None)
    least = variant.get("min_vllm_version") or model.get("min_vllm_version")
    if draft.image is None:
        version = choice.engine or least
        draft.image = f"{OFFICIAL}:v{version}" if version else None
        draft.note(f"the file names no image; {draft.image} has the version that it asks for at least")
    lines.take_command(draft, None, [_id(draft, model, variant), *_arguments(parts)])
    for part in parts:
        for name_, value in {k: v for words in ENVIRONMENT for k, v in (part.get(words) or {}).items()}.items():
            draft.take_environment(name_, value)
    if isinstance(variant.get("tp"), int) and variant["tp"] > 1:
        draft.serve.setdefault("tensor-parallel-size", variant["tp"])
    meta = content["meta"]
    draft.summary = f"{meta.get('title', draft.repository)}{'' if key in ('', 'default') else f' ({key})'}"
    _rest(draft, content)
    return draft


def _variant(draft: Draft, variants: Mapping[str, Any]) -> str:
    wanted = draft.choice.variant
    if wanted is not None and wanted not in variants:
        raise draft.fault("import-variant-not-found", wanted=wanted, suggestion=suggest(wanted, variants))
    made_for = [
        name for name, each in variants.items() if HARDWARE[-1] in ((each or {}).get("hardware_overrides") or {})
    ]
    chosen = wanted or next(iter(made_for), "default" if "default" in variants else next(iter(variants), ""))
    others = [name for name in variants if name != chosen]
    if others:
        draft.leave(
            f"variants {', '.join(others)}", f"a recipe is one variant; {chosen} was taken, --variant takes another"
        )
    return chosen


def _image(part: Mapping[str, Any]) -> str | None:
    found = part.get("docker_image")
    image = found.get("nvidia") if isinstance(found, Mapping) else found
    return image if isinstance(image, str) else None


def _id(draft: Draft, model: Mapping[str, object], variant: Mapping[str, object]) -> str:
    found = variant.get("model_id") or model.get("model_id")
    if not found:
        raise draft.fault("import-without-model-id")
    return str(found)


def _features(draft: Draft, content: Mapping[str, Any], variant: str) -> Iterator[Mapping[str, Any]]:
    """The features that are on without being asked for, each in its mode for this variant."""
    optional = content.get("opt_in_features") or ()
    for name, feature in (content.get("features") or {}).items():
        if name in optional:
            draft.leave(f"feature {name}", "it is opt-in; add its arguments to serve")
        elif name in ("text_only", "encoder_parallel") and _excludes(content, name):
            draft.leave(f"feature {name}", "it excludes another; add its arguments to serve")
        elif feature.get("modes"):
            modes = {key: each for key, each in feature["modes"].items() if variant in each.get("variants", [variant])}
            chosen = feature.get("default_mode") if feature.get("default_mode") in modes else next(iter(modes), None)
            for other in feature["modes"]:
                if other != chosen:
                    draft.leave(f"feature {name}, mode {other}", "a recipe has one mode")
            yield from [feature, modes[chosen], *_overrides(modes[chosen])] if chosen else ()
        else:
            yield from (feature, *_overrides(feature))


def _excludes(content: Mapping[str, Any], name: str) -> bool:
    return "mutually exclusive" in str((content.get("features") or {})[name].get("description", "")).lower()


def _overrides(part: Mapping[str, Any]) -> Iterator[Mapping[str, object]]:
    """What a part changes for NVIDIA's and then for the Spark's hardware."""
    for key in HARDWARE:
        yield (part.get("hardware_overrides") or {}).get(key) or {}


def _arguments(parts: list[Mapping[str, Any]]) -> list[str]:
    """All arguments; of a flag that stands twice the last counts, as the engine's parser takes it."""
    given = [str(word) for part in parts for words in ARGUMENTS for word in part.get(words) or ()]
    return [word for each in given for word in (each.split() if FLAG_AND_VALUE.fullmatch(each) else [each])]


def _rest(draft: Draft, content: Mapping[str, Any]) -> None:
    for key in ("compatible_strategies", "strategy_overrides"):
        if content.get(key):
            draft.leave(key, "the inventory sets the nodes of a service; set tensor-parallel-size for several")
    other = [key for key in content.get("hardware_overrides") or () if key not in HARDWARE]
    if other:
        draft.leave(f"hardware_overrides {', '.join(other)}", "they are for other hardware than a Spark")
    if content.get("guide"):
        draft.leave("guide", "it is text for people")
    known = ("meta", "model", "features", "opt_in_features", "variants", "hardware_overrides", "guide")
    for key in content:
        if key not in (*known, "compatible_strategies", "strategy_overrides"):
            draft.leave(key, "sparkops' recipes have no such key")
