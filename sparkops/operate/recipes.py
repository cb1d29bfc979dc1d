"""What `recipe list`, `show` and `diff` tell: the recipes there are, and in what two of them differ. Offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparkops.core.messages import Fields
from sparkops.inventory.merge import leaves
from sparkops.inventory.recipes import Recipe, read_recipe, read_recipe_file, recipe_files
from sparkops.inventory.show import plain

COMPARED = ("model", "engine", "nodes", "variables")
"""What makes two recipes different things; texts, speeds and sources do not."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One leaf, by its dotted path, that differs; None where a recipe does not say it."""

    path: str
    first: object
    second: object


def every(beside: Path | None) -> Iterator[Recipe]:
    """All recipes by name, those beside an inventory before the bundled ones. Raises InventoryError."""
    for name in recipe_files(beside):
        yield read_recipe(name, beside)


def find(word: str, beside: Path | None) -> Recipe:
    """A recipe by its name, or by the path of its file. Raises InventoryError."""
    file = Path(word)
    if word not in recipe_files(beside) and (file.suffix in (".yml", ".yaml") or file.is_file()):
        return read_recipe_file(file)
    return read_recipe(word, beside)


def text(recipe: Recipe) -> str:
    """The recipe's own file, with all its comments and sources."""
    return recipe.file.read_text(encoding="utf-8")


def as_json(recipe: Recipe) -> dict[str, object]:
    """All that the file says, as plain values; references to secrets as text."""
    content = plain(recipe.document.data)
    return {"name": recipe.name, "file": str(recipe.file), "own": recipe.own, "nodes": recipe.nodes, **content}


def differences(first: Recipe, second: Recipe) -> tuple[Difference, ...]:
    """Every leaf in which two recipes differ, sorted by path."""
    one, two = _flat(first), _flat(second)
    return tuple(
        Difference(path, one.get(path), two.get(path))
        for path in sorted({*one, *two})
        if one.get(path) != two.get(path)
    )


def rates(speeds: Sequence[Fields]) -> list[float]:
    """The published tokens per second of one stream, by the recipe itself."""
    found: list[float] = []
    for speed in speeds:
        if speed.get("streams", 1) == 1 and not speed.get("other"):
            rate = speed["tokens_per_second"]
            found += rate if isinstance(rate, list) else [rate]
    return found


def fastest(speeds: Sequence[Fields]) -> str:
    """The published speeds of one stream by this recipe as one word: `24–28.6`; empty where there is none."""
    found = rates(speeds)
    least, most = min(found, default=0.0), max(found, default=0.0)
    return "" if not found else f"{least:g}" if least == most else f"{least:g}–{most:g}"


def _flat(recipe: Recipe) -> dict[str, object]:
    content = {key: each for key, each in {"nodes": recipe.nodes, **recipe.document.data}.items() if key in COMPARED}
    return {".".join(path).removeprefix("variables."): each for path, each in leaves(plain(content))}
