"""The exact sizes of a checkpoint in a folder, from the headers of its safetensors files; no weight is read.

It must not know what a part means to an engine: it sums bytes by parts of `geometry`, known from the tensors' names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from sparkops.safetensors.header import LENGTH, Broken, header_length, parse_header
from sparkops.safetensors.parts import finest_part_of, second_layout


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes by part, over all ranks. `names` is the number of tensors, 0 where only the index's total is known."""

    parts: Mapping[str, float]
    names: int

    @property
    def total(self) -> float:
        """Bytes of all tensors."""
        return sum(self.parts.values())

    @property
    def has_mtp(self) -> bool:
        """Whether tensors of a prediction head are among them."""
        return any(part.startswith("mtp") for part in self.parts)


def of_folder(folder: Path) -> Weights | None:
    """What the folder's tensor files hold; the index's total where they are not (all) there; None where neither is."""
    index = _json(folder / "model.safetensors.index.json")
    files = counted([each.name for each in folder.glob("*.safetensors")], index)
    found = by_part(each for name in files for each in _tensors(folder / name))
    if found is not None:
        return found
    metadata = index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    return Weights({"all": float(total)}, 0) if isinstance(total, (int, float)) and 0 < total < inf else None


def counted(files: Collection[str], index: Mapping[str, object]) -> list[str]:
    """The tensor files of a checkpoint that count, sorted; none where one that the index names is lacking.

    Of two layouts of the same weights, what the index names counts, and else what is not a `second_layout`.
    """
    places = index.get("weight_map")
    listed = {str(each) for each in places.values()} if isinstance(places, Mapping) else set()
    if listed:
        return sorted(listed) if listed <= set(files) else []
    return sorted(set(files) - set(second_layout(files, ())))


def by_part(tensors: Iterable[tuple[str, int]]) -> Weights | None:
    """The bytes of tensors (name and size) by part, one of two with the same name; None where there is none."""
    sizes: dict[str, int] = {}
    for name, size in tensors:
        sizes.setdefault(name, size)
    parts: dict[str, float] = {}
    for name, size in sizes.items():
        parts[part_of(name)] = parts.get(part_of(name), 0) + size
    return Weights(parts, len(sizes)) if sizes else None


def part_of(name: str) -> str:
    """The part of `geometry` that a tensor of that name belongs to: every norm of attention is one of the norms."""
    part = finest_part_of(name)
    return "norms" if part == "attention_norms" else part


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tensors(path: Path) -> Iterator[tuple[str, int]]:
    """Name and bytes of each tensor; nothing from a file that is none."""
    try:
        with path.open("rb") as file:
            header = parse_header(file.read(header_length(file.read(LENGTH))))
    except (OSError, Broken):
        return
    for each in header.tensors:
        yield each.name, each.size
