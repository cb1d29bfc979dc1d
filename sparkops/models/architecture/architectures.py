"""Which layers and tensors a configuration makes, by the description of its architecture.

What the description does not read makes a gap: a key or a value that nobody described, so that no figure rests on it.
It must not know an engine or a memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sparkops.models.architecture import expressions
from sparkops.models.architecture.descriptions import PROFILE, VALUES, WORDS, Description, encoder

LARGEST, MOST_LAYERS = 10**12, 10_000
"""Sizes beyond which a configuration is taken for wrong."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """`count` tensors of `elements` each, of one layer (None: of none).

    `names` are those of its module, that of the checkpoint first; `quantised` says whether a method can store it in a
    format of its own, `split` whether tensor-parallel ranks share it, `width` is the inner width of an expert (0 of
    everything else), `dtype` is "" for the model's own.
    """

    part: str
    names: tuple[str, ...]
    elements: int
    count: int
    quantised: bool
    split: bool
    width: int
    dtype: str
    layer: int | None

    @property
    def parameters(self) -> int:
        """All of its elements."""
        return self.elements * self.count


WORDED = ("kind", "dtype", "checkpoints")
"""What of a cache is a word and no size."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What one layer keeps of a request, in elements; heads are those of all ranks.

    `full`, `sliding` (the last `window` tokens), `chunked` (those of a part of `window` tokens), `latent` and `sparse`
    keep `key` and `value` of each head and token; `index` keeps the keys of an indexer, `pooled` one key for each
    `shared` tokens and those of the tokens since; `state` keeps a matrix of `key` x `value` a head and the last inputs
    of a convolution over `channels` (`groups` of `value` twice among them), and one more while a prompt is read by an
    engine that takes `checkpoints` of this sort.
    `packed` keeps pages of `block` tokens (the last `window` ones, where there is a window) of `key` bytes that take
    `value`. `block` is how many tokens a block has where the kernel takes no other (0: any); each rank keeps all of a
    `whole` state.
    """

    kind: str
    heads: int
    key: int
    value: int
    window: int = 0
    channels: int = 0
    kernel: int = 0
    key_dim: int = 0
    checkpoints: str = ""
    groups: int = 0
    block: int = 0
    whole: int = 0
    shared: int = 1
    dtype: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a description makes of a configuration. `layers` has what each layer keeps, `drafting` what each layer of
    the prediction head keeps; None: the engine has no such head for this architecture.

    `gaps` are reasons why nothing is known, `part_gaps` those by part why its parameters are not. `refuses` are lines
    that the engine's class refuses for this configuration (`line`: an expression over what the engine makes of one).
    """

    described: bool
    layers: tuple[tuple[Cached, ...], ...]
    tensors: tuple[Tensor, ...]
    drafting: tuple[tuple[Cached, ...], ...] | None
    values: Mapping[str, int]
    words: Mapping[str, str]
    gaps: tuple[str, ...]
    part_gaps: Mapping[str, str]
    refuses: tuple[Mapping[str, str], ...] = ()


def tower(
    config: Mapping[str, object], around: Mapping[str, Any], of: Description | None = None
) -> tuple[Shape | None, str]:
    """The shape of an encoder of images, or why it is not known ("" where it is). `around` is the whole configuration,
    its text part flat."""
    description = encoder(config, of)
    if description is None:
        kind = f"of the type {config['model_type']!r}" if config.get("model_type") else "without a model_type"
        return None, f"an encoder of images {kind} is not described"
    name = next(iter(around.get("architectures") or ()), "")
    if name not in description.content.get("projects", (name,)):
        return None, f"what {name} puts behind its encoder of images is not described"
    outer = {
        "text_hidden": around.get("hidden_size"),
        "outer_merge": around.get("spatial_merge_size"),
        "outer_projected": around.get("projector_hidden_size"),
    }
    made = shape(description, {**config, **outer})
    return made, next(iter((*made.gaps, *made.part_gaps.values())), "")


class _Missing(LookupError):
    """A name that an expression needs and the configuration lacks, or a value that it can't be computed with."""


class _Scope(Mapping[str, object]):
    """The names of one layer: sizes over keys, each computed once; a key that is not there is None."""

    def __init__(
        self, sizes: Mapping[str, str | int], config: Mapping[str, object], known: Mapping[str, object]
    ) -> None:
        self.sizes = sizes
        self.config = config
        self.found: dict[str, object] = dict(known)
        self.missing: list[str] = []

    def __getitem__(self, name: str) -> object:
        if name in expressions.FUNCTIONS:
            raise KeyError(name)
        if name not in self.found:
            if name in self.sizes:
                self.found[name] = expressions.value(self.sizes[name], self)
            else:
                self.found[name] = self.config.get(name)
                if self.found[name] is None:
                    self.missing.append(name)
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def value(self, text: str | int) -> object:
        """The value of an expression. Raises _Missing with the reason where it has none."""
        try:
            return expressions.value(text, self)
        except (TypeError, LookupError, ZeroDivisionError, ValueError, AttributeError) as error:
            raise _Missing(self._lack(text) or f"{text}: {error}") from None

    def _lack(self, text: str | int) -> str:
        """Which key an expression lacks: one that it names itself, or by a size."""
        seen: set[str] = set()
        names = sorted(expressions.needed(str(text)))
        while names:
            name = names.pop(0)
            if name in self.missing:
                return f"{name} is not in the file"
            if name not in seen and isinstance(self.sizes.get(name), str):
                names += sorted(expressions.needed(str(self.sizes[name])))
            seen.add(name)
        return ""

    def size(self, text: str | int) -> int:
        """The same, where it is a size."""
        found = self.value(text)
        if found is None:
            raise _Missing(self._lack(text) or f"{text} is not in the file")
        if not isinstance(found, int) or not 0 <= found <= LARGEST**2:
            raise _Missing(f"{text} is {found!r}, which is no size")
        return int(found)


def shape(description: Description, config: Mapping[str, object]) -> Shape:
    """The layers and tensors of a configuration, its text part flat."""
    return _Reader(description, {**description.defaults, **config}).read()


class _Reader:
    """Reads one configuration by one description, and collects what it lacks."""

    def __init__(self, description: Description, config: Mapping[str, object]) -> None:
        self.description = description
        self.config = config
        self.gaps: dict[str, None] = {}
        self.part_gaps: dict[str, str] = {}
        self.tensors: list[Tensor] = []
        self.tables: dict[str, dict[tuple[int, int], int]] = {"tables": {}, "mrope_tables": {}}

    def read(self) -> Shape:
        scope = _Scope(self.description.sizes, self.config, {"i": 0, "kind": ""})
        count = self._count(scope, "layer_count", MOST_LAYERS)
        for part in self.description.around:
            if self._applies(part, scope):
                self._tensors(part, scope, None, "")
        layers = tuple(self._layer(index) for index in range(count))
        drafting = self._drafting(count)
        self._unread(count)
        values, words = self._named()
        states = [each for layer in layers for each in layer if each.kind == "state"]
        values |= {"linear_value_heads": states[0].heads, "linear_key_dim": states[0].key_dim} if states else {}
        tables = {} if self.description.content.get("tower") else self.tables
        values |= {kind: sum(found.values()) for kind, found in tables.items()}
        tensors, gaps = tuple(self.tensors), tuple(self.gaps)
        return Shape(True, layers, tensors, drafting, values, words, gaps, dict(self.part_gaps), self._refuses())

    def _refuses(self) -> tuple[Mapping[str, str], ...]:
        scope = _Scope(self.description.sizes, self.config, {"i": 0, "kind": ""})
        return tuple(each for each in self.description.refuses if self._applies(each, scope))

    def _unread(self, count: int) -> None:
        """Adds what nobody described: keys, types of layers, entries of the settings of positions."""
        reasons = [f"{key} is a key that is not described" for key in self.description.unread(self.config)]
        strange = self.description.strange_layers(self.config)
        reasons += [f"layers of the type {each!r} are not described" for each in strange]
        listed = self.config.get("layer_types")
        if isinstance(listed, list) and len(listed) < count:
            reasons.append(f"layer_types has {len(listed)} of {count} layers")
        self.gaps.update(dict.fromkeys(reasons))
        if rotary := self.description.unread_rotary(self.config):
            self.part_gaps["rotary"] = f"{rotary[0]} is a key that is not described"

    def _named(self) -> tuple[dict[str, int], dict[str, str]]:
        values: dict[str, int] = {}
        content = self.description.content
        for name, text in (content.get(PROFILE, {}) if content.get("tower") else VALUES).items():
            try:
                values[name] = _Scope(self.description.sizes, self.config, {"i": 0, "kind": ""}).size(text)
            except _Missing:
                values[name] = 0
        if content.get("tower"):
            return values, {}
        scope = _Scope(self.description.sizes, self.config, {"i": 0, "kind": ""})
        return values, {name: str(scope.value(text)) for name, text in WORDS.items()}

    def _count(self, scope: _Scope, text: str, most: int) -> int:
        try:
            found = scope.size(text)
        except _Missing as reason:
            self.gaps[str(reason)] = None
            return 0
        return min(found, most)

    def _layer(self, index: int) -> tuple[Cached, ...]:
        scope = _Scope(self.description.sizes, self.config, {"i": index, "kind": self._kind(index)})
        return tuple(
            each
            for part in self.description.layer
            if self._applies(part, scope)
            for each in self._part(part, scope, index, f"layers.{index}.")
        )

    def _kind(self, index: int) -> str:
        text, kinds = self.description.content.get("kind"), self.description.content.get("kinds", ())
        if text is None:
            return ""
        try:
            found = _Scope(self.description.sizes, self.config, {"i": index, "kind": ""}).value(text)
        except _Missing as reason:
            self.gaps[str(reason)] = None
            return ""
        if found not in kinds:
            self.gaps[f"layers of the kind {found!r} are not described"] = None
        return str(found)

    def _applies(self, part: Mapping[str, Any], scope: _Scope) -> bool:
        try:
            return bool(scope.value(part.get("when", 1)))
        except _Missing as reason:
            self.gaps[str(reason)] = None
            return False

    def _part(self, part: Mapping[str, Any], scope: _Scope, index: int | None, prefix: str) -> Iterator[Cached]:
        if "sizes" in part:
            known = {"i": scope["i"], "kind": scope["kind"]}
            scope = _Scope({**self.description.sizes, **part["sizes"]}, self.config, known)
        self._tensors(part, scope, index, prefix)
        if "table" in part:
            self._table(part["table"], scope)
        cache_of = part.get("cache")
        if cache_of:
            try:
                yield _cached(cache_of, scope)
            except _Missing as reason:
                self.gaps[str(reason)] = None

    def _tensors(self, part: Mapping[str, Any], scope: _Scope, index: int | None, prefix: str) -> None:
        module = f"{prefix}{part['module']}." if part.get("module") else prefix
        for name, given in part["tensors"].items():
            tensor = given if isinstance(given, Mapping) else {"size": given}
            where = tensor.get("part", part["part"])
            try:
                elements = scope.size(tensor["size"])
                count, width = scope.size(tensor.get("count", 1)), scope.size(tensor.get("width", 0))
                dtype = str(scope.value(tensor.get("dtype", "''")))
            except _Missing as reason:
                self.part_gaps.setdefault(where, str(reason))
                continue
            if elements and count:
                names = tuple(f"{module}{each}" for each in (name, *tensor.get("as", ())))
                quantised, split = tensor.get("quantised", part.get("quantised", True)), tensor.get("split", True)
                self.tensors.append(Tensor(where, names, elements, count, quantised, split, width, dtype, index))

    def _table(self, given: Mapping[str, Any], scope: _Scope) -> None:
        """Adds the rotary table of a layer, which layers of alike positions share."""
        try:
            size, base, wide = (scope.size(given[name]) for name in ("size", "base", "float"))
            kind = "mrope_tables" if scope.size(given["sections"]) else "tables"
        except _Missing:
            return
        self.tables[kind][size, base] = size * (4 if wide else 2)

    def _drafting(self, first: int) -> tuple[tuple[Cached, ...], ...] | None:
        parts = self.description.drafting
        if parts is None:
            return None
        known = {"i": first, "kind": "full_attention"}
        scope = _Scope(self.description.sizes, self.config, known)
        count = self._count(scope, self.description.content["drafting"]["layers"], MOST_LAYERS)
        if not count and self.description.content["drafting"].get("refused_without"):
            return None
        text, self.tensors = self.tensors, []
        gaps, self.part_gaps = self.part_gaps, {}
        layers = tuple(
            tuple(each for part in parts for each in self._part(part, scope, first + index, f"mtp.layers.{index}."))
            for index in range(count)
        )
        mtp = [replace(each, part="mtp_experts" if each.part == "experts" else "mtp") for each in self.tensors]
        self.tensors = [*text, *mtp]
        self.part_gaps = {
            **gaps,
            **dict.fromkeys(["mtp"] if self.part_gaps else [], next(iter(self.part_gaps.values()), "")),
        }
        return layers


def _cached(given: Mapping[str, Any], scope: _Scope) -> Cached:
    found: dict[str, Any] = {
        name: str(scope.value(text)) if name in WORDED else scope.size(text) for name, text in given.items()
    }
    return Cached(**found)
