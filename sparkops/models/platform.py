"""What is known about drivers, CUDA, kernels, firmware and devices: the typed view of `knowledge/platform.yml`.

It must not know a node or an inventory: it judges a version, with reason and source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.models import knowledge_file

Word: TypeAlias = Literal["accept", "warn", "deny"]
Certainty: TypeAlias = Literal["verified", "unverified", "contradictory"]


GIB = 2**30


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on the versions that `match`, a glob over the whole version. `match` is empty for the unlisted."""

    match: str
    word: Word
    certainty: Certainty
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Component:
    """All verdicts on one thing, the way out of a bad one, and the one for a version that nothing matches."""

    name: str
    title: str
    remedy: str
    unlisted: Word
    verdicts: tuple[Verdict, ...]

    def verdict(self, version: str) -> Verdict:
        """The verdict with the most specific match; that on unlisted versions where none matches."""
        index = most_specific([each.match for each in self.verdicts], version)
        if index is not None:
            return self.verdicts[index]
        return Verdict("", self.unlisted, "unverified", f"nothing is known about {self.title} {version}", "")

    def judge(self, version: str, accept: Iterable[str] = (), deny: Iterable[str] = ()) -> Verdict:
        """The verdict of an inventory's own globs and of what is known.

        The most specific match of all three counts; between equals the inventory's word before what is known, and its
        deny before its accept.
        """
        own = [Verdict(each, "deny", "verified", "the inventory denies it", "inventory") for each in deny]
        own += [Verdict(each, "accept", "verified", "the inventory accepts it", "inventory") for each in accept]
        candidates = [*own, *self.verdicts]
        index = most_specific([each.match for each in candidates], version)
        return self.verdict(version) if index is None else candidates[index]


@dataclass(frozen=True, slots=True)
class Device:
    """What a rank runs on. `memory` is in bytes as CUDA shows it, `bandwidth` in bytes a second.

    `host` is what must be left to the rest of the node (0 where the GPU's memory is its own), `beyond` what an engine's
    profile counts there beside the model's run, in bytes; `launch` seconds that a layer of a decode step takes beside
    reading.
    """

    name: str
    title: str
    memory: float
    bandwidth: float
    host: float
    beyond: float
    launch: float
    source: str
    unverified: str


@dataclass(frozen=True, slots=True)
class Platform:
    """All components and devices by name."""

    components: Mapping[str, Component]
    devices: Mapping[str, Device]

    def device(self, name: str) -> Device:
        """The device of that name. Raises InventoryError naming the known ones."""
        if name not in self.devices:
            raise InventoryError.of("device-unknown", name=name, known=", ".join(self.devices))
        return self.devices[name]

    def component(self, name: str) -> Component:
        """The component of that name. Raises InventoryError naming the known ones."""
        if name not in self.components:
            raise InventoryError.of("component-unknown", name=name, known=", ".join(sorted(self.components)))
        return self.components[name]

    def verdict(self, component: str, version: str) -> Verdict:
        """The verdict on a version of a component."""
        return self.component(component).verdict(version)


def specificity(glob: str) -> int:
    """How many characters of a glob are literal; a set in brackets counts as one."""
    return len(re.sub(r"[*?]", "", re.sub(r"\[[^\]]+\]", "x", glob)))


def most_specific(globs: list[str], version: str) -> int | None:
    """The index of the most specific glob that matches, the first of equals; None where none does."""
    matching = [index for index, glob in enumerate(globs) if fnmatchcase(version, glob)]
    return max(matching, key=lambda index: (specificity(globs[index]), -index), default=None)


@cache
def load(path: Path | None = None) -> Platform:
    """The bundled knowledge, or that of another file. Raises InventoryError for a file that is not of its shape."""
    path = path or bundled("knowledge") / "platform.yml"
    content = knowledge_file.read(path)
    with knowledge_file.in_shape_of("platform.schema.json", path):
        return Platform(
            components={name: _component(name, each) for name, each in content["components"].items()},
            devices={name: _device(name, each) for name, each in content["devices"].items()},
        )


def _component(name: str, content: Mapping[str, Any]) -> Component:
    return Component(
        name=name,
        title=str(content["title"]),
        remedy=str(content["remedy"]),
        unlisted=_one_of(content["unlisted"], get_args(Word)),
        verdicts=tuple(_verdict(each) for each in content["verdicts"]),
    )


def _device(name: str, content: Mapping[str, Any]) -> Device:
    return Device(
        name=name,
        title=str(content["title"]),
        memory=content["memory"] * GIB,
        bandwidth=content["bandwidth"] * 1e9,
        host=content["host"] * GIB,
        beyond=content["beyond"] * GIB,
        launch=content["launch_microseconds"] / 1e6,
        source=str(content["source"]),
        unverified=str(content["unverified"]),
    )


def _verdict(content: Mapping[str, object]) -> Verdict:
    return Verdict(
        match=str(content["match"]),
        word=_one_of(content["verdict"], get_args(Word)),
        certainty=_one_of(content["certainty"], get_args(Certainty)),
        reason=str(content["reason"]),
        source=str(content["source"]),
    )


Chosen = TypeVar("Chosen")


def _one_of(value: object, words: tuple[Chosen, ...]) -> Chosen:
    for each in words:
        if each == value:
            return each
    raise ValueError(f"{value!r} is none of {', '.join(map(str, words))}")
