"""The models that are known, and those in a folder: geometry, how their checkpoints are stored, what was published.

`find` takes the argument of `vllm serve`: a repository, a model's name, or a folder with a config.json. One YAML
file a model under `knowledge/models/` (its shape: `knowledge/model.schema.json`, checked of one's own files as they are
read, of the bundled ones in the tests). It must not know an engine.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from sparkops.core.data import bundled, folders
from sparkops.core.errors import InventoryError
from sparkops.models import knowledge_file
from sparkops.models.architecture import quantisation, tensors
from sparkops.models.architecture.geometry import Geometry, of_config
from sparkops.models.architecture.quantisation import Quantisation
from sparkops.models.architecture.tensors import Weights

MARKS: Mapping[str, tuple[str, ...]] = {
    "auto-round": ("autoround", "auto-round"),
    "gptq": ("gptq",),
    "awq": ("awq",),
    "modelopt": ("nvfp4",),
    "fp8": ("fp8",),
    "": ("bf16",),
}
"""Words in a repository's name that tell its method, when that repository itself is not known."""

OTHER = re.compile(
    r"(?:^|[-_.])(?:a?\d+(?:\.\d+)?[bm]|\d+x\d+b|reap\d*|pruned?|slim|mini|tiny|draft(?:er)?|eagle\d*|dflash|dspark|speculators?|"
    r"assistant|embed(?:ding)?|rerank(?:er)?|reward|lora|distill(?:ed)?|experts?|layers|gguf|mlx|exl[23]|onnx)(?=$|[-_.])"
)
"""Words in what follows a known model's name after which it is another model, or in another form."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A published checkpoint. `weight_bytes` is its published size in bytes (0: none known), `unverified` what of it
    is not verified."""

    id: str
    quantisation: Quantisation
    weight_bytes: int
    mtp: bool | None
    source: str
    unverified: str


@dataclass(frozen=True, slots=True)
class Speed:
    """A published speed: tokens per second (a range where two are given), how it was had, and by whose word."""

    quantisation: str
    setup: str
    nodes: int
    streams: int
    low: float
    high: float
    source: str


@dataclass(frozen=True, slots=True)
class FromHub:
    """Where a hub has what a model was read from. `asked` is when the hub last said so, in seconds since 1970;
    `cached`: it was not asked now. `moved_to` is the repository's new name where it has another."""

    repository: str
    commit: str
    moved_to: str
    asked: float
    cached: bool

    def told(self) -> str:
        """Where it was read, in words."""
        renamed = f", which is now {self.moved_to}" if self.moved_to else ""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.asked))
        how = f"out of the cache, asked {when}" if self.cached else "read from the hub now"
        return f"{self.repository}{renamed} at commit {self.commit[:12]}, {how}"


@dataclass(frozen=True)
class Model:
    """What is known of a model that was asked for.

    `mtp_weights`: whether the checkpoint has the prediction head's weights; None: not known. `weights` are the exact
    sizes, where the folder's tensor headers could be read; `published_bytes` is 0 where no size is known. `guessed`: it
    is known by its name alone, so that nothing is refused on its sizes.
    """

    name: str
    repository: str
    geometry: Geometry
    quantisation: Quantisation
    published_bytes: int
    weights: Weights | None
    mtp_weights: bool | None
    drafts_for: tuple[str, ...]
    speeds: tuple[Speed, ...]
    source: str
    unverified: str
    from_hub: FromHub | None = None
    guessed: bool = False

    @property
    def verified(self) -> bool:
        """Whether nothing about it is marked unverified."""
        return not self.unverified

    @property
    def known_geometry(self) -> Geometry | None:
        """The geometry, where its architecture is described at all."""
        return self.geometry if self.geometry.described else None

    @property
    def drafter(self) -> bool:
        """Whether it only drafts for another."""
        return bool(self.drafts_for) or self.geometry.target_layers > 0


def find(model: str, beside: Path | None = None) -> Model | None:
    """The model of that name, repository or folder, or what its name says; None where nothing is known. `beside` holds
    an own knowledge/. Raises InventoryError as `known` does."""
    return known(model, beside) or guessed(model, beside)


def known(model: str, beside: Path | None = None) -> Model | None:
    """The model of that name, repository or folder, where exactly it is known.

    Raises InventoryError for a folder whose config.json, or a knowledge file, that can't be read.
    """
    for folder in (Path(), beside):
        if model and folder is not None and (place := _folder(folder, model)) is not None:
            return of_folder(place)
    wanted = model.rstrip("/").lower()
    short = wanted.rpartition("/")[2]
    for listed in _entries(beside, short):
        if short == listed.name.lower():
            return _model(listed, _repository(listed, short) or Repository("", Quantisation(), 0, None, "", ""))
        repository = _repository(listed, wanted)
        if repository is not None:
            return _model(listed, repository)
    return None


def _folder(base: Path, model: str) -> Path | None:
    """The folder of that name with a config.json; None for none, and for a path that is another machine's or nobody's,
    as one in a container mostly is."""
    try:
        place = base / Path(model).expanduser()
        return place if (place / "config.json").is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def guessed(model: str, beside: Path | None = None) -> Model | None:
    """An unlisted repository whose name begins with a known model's: stored as a known one of the same method."""
    return _by_base(list(_entries(beside)), model.rstrip("/"))


def names(beside: Path | None = None) -> list[str]:
    """Every name and repository that `find` knows, for a hint at the nearest one."""
    return [
        each
        for listed in _entries(beside)
        for each in (listed.name, *(str(entry["id"]) for entry in listed.repositories))
    ]


def of_folder(folder: Path) -> Model:
    """The model in a folder, as its own config.json and tensor headers say it. Raises InventoryError."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InventoryError.of("model-config-unreadable", where=str(path), error=error) from None
    if not isinstance(config, dict):
        raise InventoryError.of("model-config-not-mapping", where=str(path))
    weights = tensors.of_folder(folder)
    return of_files(folder.resolve().name, str(folder), config, _beside(folder), weights, source=str(path))


def of_files(
    name: str,
    repository: str,
    config: Mapping[str, object],
    beside: Mapping[str, object] | None,
    weights: Weights | None,
    *,
    source: str,
    from_hub: FromHub | None = None,
) -> Model:
    """The model that a checkpoint's own files describe: its config.json, the `hf_quant_config.json` beside it, and what
    its tensor headers hold. Raises InventoryError for a configuration that is none."""
    return Model(
        name=name,
        repository=repository,
        geometry=of_config(config, source),
        quantisation=quantisation.of_config(config, beside),
        published_bytes=0,
        weights=weights,
        mtp_weights=None if weights is None or not weights.names else weights.has_mtp,
        drafts_for=(),
        speeds=(),
        source=source,
        unverified="",
        from_hub=from_hub,
    )


def _beside(folder: Path) -> Mapping[str, object] | None:
    """ModelOpt's own file beside the configuration; None where it is not there or says nothing."""
    try:
        content = json.loads((folder / "hf_quant_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class _Listed:
    """What one knowledge file says, and the geometry of its configuration, read when it is first asked for."""

    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.content["name"])

    @property
    def repositories(self) -> Sequence[Mapping[str, Any]]:
        return self.content.get("repositories") or ()

    @cached_property
    def geometry(self) -> Geometry:
        return of_config(self.content["geometry"], f"knowledge/models: {self.name}")


def _entries(beside: Path | None, mentioned: str = "") -> Iterator[_Listed]:
    """What the files say, one's own before the bundled ones; of these only those in which a word is `mentioned`."""
    seen = set()
    for folder in folders("knowledge", beside):
        for path in sorted((folder / "models").glob("*.yml")):
            own = folder != bundled("knowledge")
            if not own and mentioned not in _text(path):
                continue
            listed = _read(path, own)
            if listed.name.lower() not in seen:
                seen.add(listed.name.lower())
                yield listed


@cache
def _text(path: Path) -> str:
    """A file's text in small letters: to look for a word in all of them is much faster than to parse them."""
    return path.read_text(encoding="utf-8").lower()


@cache
def _read(path: Path, own: bool) -> _Listed:
    """The content of a file. Raises InventoryError; what is in the user's `own` is checked key by key."""
    content = knowledge_file.read(path)
    if "name" not in content or not isinstance(content.get("geometry"), dict):
        raise InventoryError.of("model-file-incomplete", where=str(path))
    if own:
        from sparkops.models import model_file  # jsonschema costs a third of a command's start

        model_file.check(content, str(path))
    return _Listed(content)


def _repository(listed: _Listed, wanted: str) -> Repository | None:
    """The repository of that id, or whose last part it is."""
    for entry in listed.repositories:
        known = str(entry["id"]).lower()
        if wanted == known or ("/" not in wanted and wanted == known.rpartition("/")[2]):
            return Repository(
                id=str(entry["id"]),
                quantisation=_stored(entry),
                weight_bytes=int(float(entry.get("gigabytes", 0)) * 1e9),
                mtp=entry.get("mtp"),
                source=str(entry.get("source", "")),
                unverified=str(entry.get("unverified", "")),
            )
    return None


def _stored(entry: Mapping[str, Any]) -> Quantisation:
    return Quantisation(
        method=str(entry.get("method", "")),
        algorithm=str(entry.get("algorithm", "")),
        bits=int(entry.get("bits", 16)),
        group_size=int(entry.get("group_size", 0)),
        formats={str(part): str(word) for part, word in (entry.get("formats") or {}).items()},
    )


def _model(listed: _Listed, repository: Repository) -> Model:
    content = listed.content
    return Model(
        name=listed.name,
        repository=repository.id or listed.name,
        geometry=listed.geometry,
        quantisation=repository.quantisation,
        published_bytes=repository.weight_bytes,
        weights=None,
        mtp_weights=repository.mtp,
        drafts_for=tuple(str(each) for each in content.get("drafts_for") or ()),
        speeds=tuple(_speed(each) for each in content.get("speeds") or ()),
        source=repository.source or str(content.get("source", "")),
        unverified="; ".join(filter(None, (str(content.get("unverified", "")), repository.unverified))),
    )


def _speed(entry: Mapping[str, Any]) -> Speed:
    value = entry["tokens_per_second"]
    low, high = (value[0], value[-1]) if isinstance(value, list) else (value, value)
    return Speed(
        quantisation=str(entry.get("quantisation", "")),
        setup=str(entry.get("setup", "")),
        nodes=int(entry.get("nodes", 1)),
        streams=int(entry.get("streams", 1)),
        low=float(low),
        high=float(high),
        source=str(entry.get("source", "")),
    )


def _by_base(candidates: list[_Listed], wanted: str) -> Model | None:
    short = wanted.rpartition("/")[2].lower()
    bases = [each for each in candidates if short.startswith(f"{each.name.lower()}-")]
    if not bases:
        return None
    base = max(bases, key=lambda each: len(each.name))
    rest = short[len(base.name) :]
    if OTHER.search(rest):
        return None
    method = next((method for method, words in MARKS.items() if any(word in rest for word in words)), None)
    if method is None:
        return None
    alike = [each for each in candidates if each.geometry.architectures == base.geometry.architectures]
    for listed in (base, *alike):
        for entry in listed.repositories:
            if entry.get("method", "") == method and (stored := _repository(listed, str(entry["id"]).lower())):
                like = f"it is taken to be stored as {stored.id}"
                made = _model(base, replace(stored, id=wanted, weight_bytes=0, mtp=None, unverified=like))
                return replace(made, guessed=True)
    return None
