"""The descriptions of architectures in `knowledge/architectures/`: what each reads of a config.json.

A description is found by the first name under `architectures`, one of an encoder of images by its `model_type`. It must
not know a configuration's values: `architectures` makes layers and tensors of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sparkops.core.data import bundled
from sparkops.models import knowledge_file
from sparkops.models.architecture import expressions

SIZES = "_parts.yml"
INERT = "_inert.yml"
TOWERS = "_towers.yml"
WRAPPERS = "_wrappers.yml"
DEFAULTS = "_defaults.json"
TIED = "tie_word_embeddings"
ORDINARY = ("full_attention", "sliding_attention", "chunked_attention")
"""The types of layers that a description without kinds of its own means."""
ROTARY = ("rope_parameters", "rope_scaling")
NOTHING: tuple[object, ...] = (None, "", [], {})
"""Values of a key that say nothing."""
PROFILE = "profile"
"""What the largest input of an encoder is: its patches, bytes of each while it runs, and tokens that it gives."""
EVALUATED = ("size", "count", "width", "dtype")
"""What of a tensor is an expression."""
VALUES = {
    "hidden": "hidden",
    "heads": "heads",
    "kv_heads": "kv_heads",
    "head_dim": "dim",
    "vocabulary": "vocabulary",
    "max_positions": "length or 0",
    "stretched": "stretched or 0",
    "yarn_positions": "yarn_positions or 0",
    "usual_positions": "usual_positions or 0",
    "experts": "experts",
    "experts_per_token": "chosen",
    "tied": "1 if tied else 0",
    "target_layers": "targets",
    "latent_width": "latent_width or 0",
    "item_tokens": "item_tokens or 0",
    "largest_capture": "largest_capture or 0",
    "state_chunk": "state_chunk or 0",
    "pipelined_head": "pipelined_head or 0",
}
"""The sizes of a model that others ask for by name; 0 where it has none."""
WORDS = {"ssm_dtype": "ssm_dtype"}


@cache
def _shared() -> Mapping[str, Any]:
    """What all descriptions share."""
    folder = bundled("knowledge") / "architectures"
    inert = knowledge_file.read(folder / INERT)
    return {
        **knowledge_file.read(folder / SIZES),
        "inert": frozenset(inert["keys"]),
        "rotary": frozenset(inert["rotary"]),
        "defaults": knowledge_file.read(folder / DEFAULTS)["defaults"],
    }


@cache
def _texts() -> Mapping[Path, str]:
    """The files of descriptions: to look for a name in all of them is much faster than to parse them."""
    folder = bundled("knowledge") / "architectures"
    return {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("[!_]*.yml"))}


@cache
def _described_in(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The descriptions of one file, by the architecture's name."""
    content = knowledge_file.read(path)
    found: dict[str, Mapping[str, Any]] = {}
    for each in content["describes"]:
        own = {**each, "parts": {**_shared()["parts"], **content.get("parts", {})}}
        found.update(dict.fromkeys(each["architectures"], own))
    return found


@cache
def _towers() -> Mapping[str, Description]:
    """The descriptions of encoders of images, by the `model_type` of their part of a configuration."""
    shared = _shared()
    content = knowledge_file.read(bundled("knowledge") / "architectures" / TOWERS)
    found: dict[str, Description] = {}
    for each in content["describes"]:
        own = {**each, "parts": content["parts"], "tower": True}
        found.update(dict.fromkeys(each["types"], Description(own, {**shared, "sizes": content["sizes"]})))
    return found


def encoder(config: Mapping[str, object], of: Description | None = None) -> Description | None:
    """The description of an encoder of images, found by its `model_type`, else as its model's own description says;
    None where there is none."""
    return _towers().get(str(config.get("model_type") or (of.content.get("encoder") if of else "")))


@cache
def _wrappers() -> Mapping[str, Any]:
    return knowledge_file.read(bundled("knowledge") / "architectures" / WRAPPERS)


def unwrapped(config: Mapping[str, Any]) -> tuple[str, dict[str, object]]:
    """The name of the architecture that describes a configuration ("" where it has none), and its keys with the text
    part flat. One that only puts encoders before a text model is described by that model's own name or type."""
    wrappers = _wrappers()
    for key in wrappers["outer"]:
        inner = config.get(key)
        if isinstance(inner, Mapping):
            given = {name: value for name, value in inner.items() if value is not None and name != "architectures"}
            config = {**{name: value for name, value in config.items() if name != key}, **given}
    nested: Mapping[str, Any] = next(
        (config[key] for key in wrappers["keys"] if isinstance(config.get(key), Mapping)), {}
    )
    flat = {key: value for key, value in {**config, **nested}.items() if key not in wrappers["keys"]}
    if config.get(TIED) is not None:  # what stands outside wins, as with transformers' get_text_config
        flat[TIED] = config[TIED]
    listed = config.get("architectures")
    name = str(listed[0]) if isinstance(listed, list) and listed else ""
    if name not in wrappers["architectures"] or not nested:
        return name, flat
    text = next(iter(nested.get("architectures") or ()), wrappers["types"].get(nested.get("model_type"), name))
    flat |= wrappers["sets"].get(name, {})
    return str(text), {key: value for key, value in flat.items() if key not in wrappers["ignores"]}


def known() -> tuple[str, ...]:
    """Every architecture that is described."""
    return tuple(sorted(name for path in _texts() for name in _described_in(path)))


@cache
def described(name: str) -> Description | None:
    """The description of an architecture; None where there is none."""
    found = (_described_in(path).get(name) for path, text in _texts().items() if name in text)
    content = next((each for each in found if each is not None), None)
    if content is None:
        return None
    defaults = {**_shared()["defaults"].get(name, {}), **content.get("defaults", {})}
    return Description({**content, "defaults": defaults}, _shared())


class Description:
    """One architecture: its sizes, the parts of a layer, and the keys of a configuration that it reads."""

    def __init__(self, content: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        self.content = content
        self.sizes: Mapping[str, str | int] = {**shared["sizes"], **content.get("sizes", {})}
        self.inert: frozenset[str] = shared["inert"] | frozenset(content.get("ignores", ()))
        self.rotary: frozenset[str] = shared["rotary"]
        self.defaults: Mapping[str, object] = content.get("defaults", {})
        self.refuses = (*shared.get("refuses", ()), *content.get("refuses", ()))

    @cached_property
    def layer(self) -> tuple[Mapping[str, object], ...]:
        """The parts of a layer, each with its condition."""
        return tuple(self._parts(self.content["layer"]))

    @cached_property
    def around(self) -> tuple[Mapping[str, object], ...]:
        """The parts that stand once: ends, and what else there is."""
        ends = () if self.content.get("tower") else ("ends",)
        return tuple(self._parts((*ends, *self.content.get("around", ()))))

    @cached_property
    def drafting(self) -> tuple[Mapping[str, Any], ...] | None:
        """The parts of a layer of the prediction head; None without one."""
        content = self.content.get("drafting")
        return None if content is None else tuple(self._parts(content["layer"]))

    @cached_property
    def reads(self) -> frozenset[str]:
        """Every key of a configuration that some expression reads."""
        return frozenset(self._closure(expressions.names)) - set(self.sizes)

    @cached_property
    def nested(self) -> Mapping[str, frozenset[str]]:
        """The entries that are read of each key which holds a mapping."""
        found: dict[str, set[str]] = {key: set(each) for key, each in self.content.get("nested", {}).items()}
        for text in self._texts(self._closure(expressions.names)):
            for name, entry in expressions.entries(text):
                found.setdefault(name, set()).add(entry)
        return {name: frozenset(each) for name, each in found.items()}

    def reads_text(self, name: str) -> bool:
        """Whether the engine's class of that name leaves the encoders, which a sibling of another name loads."""
        siblings = self.content.get("architectures", ())
        return name.endswith("ForCausalLM") and any(each.endswith("ForConditionalGeneration") for each in siblings)

    def unread(self, config: Mapping[str, object]) -> list[str]:
        """The keys of a configuration that nobody described and that hold something."""
        found = [
            key
            for key, value in config.items()
            if value not in NOTHING and key not in self.reads and key not in self.inert
        ]
        for key, entries in self.nested.items():
            value = config.get(key)
            inner = value if isinstance(value, Mapping) else {}
            found += [f"{key}.{each}" for each in inner if each not in entries and each not in self.inert]
        return found

    def strange_layers(self, config: Mapping[str, object]) -> list[str]:
        """The entries of `layer_types` that a description without kinds of its own does not mean."""
        listed = () if "kind" in self.content else config.get("layer_types")
        return sorted({str(each) for each in listed if each not in ORDINARY}) if isinstance(listed, list) else []

    def unread_rotary(self, config: Mapping[str, object]) -> list[str]:
        """The entries of the settings of positions that nobody described, at any depth."""
        return [each for key in ROTARY for each in self._unread_rotary(config.get(key), key)]

    def _unread_rotary(self, settings: object, where: str) -> Iterator[str]:
        for key, value in settings.items() if isinstance(settings, Mapping) else ():
            if key not in self.rotary and value not in NOTHING:
                yield f"{where}.{key}"
            yield from self._unread_rotary(value, f"{where}.{key}")

    def _parts(self, entries: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
        for entry in entries:
            given = {"part": entry} if isinstance(entry, str) else entry
            yield {**self.content["parts"][given["part"]], **given, "part": given.get("of", self._of(given["part"]))}

    def _of(self, name: str) -> str:
        return str(self.content["parts"][name].get("part", "other"))

    def _written(self) -> Iterator[object]:
        drafting = self.content.get("drafting") or {}
        yield from self.content.get(PROFILE, {}).values()
        yield from ("layer_count", self.content.get("kind"), drafting.get("layers"))
        yield from (each.get("when") for each in self.refuses)
        yield from () if self.content.get("tower") else (*VALUES.values(), *WORDS.values())
        for part in (*self.layer, *self.around, *(self.drafting or ())):
            yield part.get("when")
            yield from part.get("sizes", {}).values()
            yield from part.get("cache", {}).values()
            yield from part.get("table", {}).values()
            for tensor in part.get("tensors", {}).values():
                yield from (tensor.get(key) for key in EVALUATED) if isinstance(tensor, Mapping) else (tensor,)

    def _texts(self, names: Iterable[str]) -> Iterator[str]:
        yield from (each for each in self._written() if isinstance(each, str))
        yield from (text for name in names if isinstance(text := self.sizes.get(name), str))

    def _closure(self, of: Any) -> set[str]:
        found: set[str] = set()
        open_names = {name for each in self._written() if isinstance(each, str) for name in of(each)}
        while open_names - found:
            name = (open_names - found).pop()
            found.add(name)
            text = self.sizes.get(name)
            if isinstance(text, str):
                open_names |= of(text)
        return found - {"i", "kind"}
