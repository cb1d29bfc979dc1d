"""Recipes: ready sets of variables for a service, one file each, found beside the inventory and then bundled.

What the variables mean is the roles' business; further keys of a recipe (facts, sources, notes) are carried along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.core import data
from sparkops.core.errors import InventoryError
from sparkops.inventory.document import Document, Where, read
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.validate import validate

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["summary", "variables"],
    "properties": {
        "summary": {"type": "string", "description": "what the recipe serves, in one line"},
        "variables": {
            "type": "object",
            "additionalProperties": {"type": ["object", "null"]},
            "description": "a namespace per role: {image: {...}, checkpoint: {...}, service: {serve: {...}}}",
        },
    },
}
PLACE: Where = ("variables",)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe. `variables` maps a role's name to its variables; `metadata` is the rest of the file."""

    name: str
    summary: str
    variables: Mapping[str, Mapping[str, Any]] = field(repr=False)
    document: Document = field(repr=False)
    own: bool = False

    @property
    def metadata(self) -> Mapping[str, Any]:
        return {key: value for key, value in self.document.data.items() if key not in ("summary", "variables")}


def recipe_files(beside: Path | None) -> dict[str, Path]:
    """The file of every recipe by name, those beside the inventory before the bundled ones."""
    found: dict[str, Path] = {}
    for folder in data.folders("recipes", beside):
        for file in sorted(folder.glob("*.yml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def read_recipe(name: str, beside: Path | None, *, where: str = "") -> Recipe:
    """The recipe of that name. Raises InventoryError, at `where` when there is none."""
    files = recipe_files(beside)
    if name not in files:
        raise InventoryError(f"there is no recipe {name!r}", where=where, hint=suggest(name, files))
    file = files[name]
    own = beside is not None and file.parent == beside / "recipes"
    document = read(file, str(file) if own else str(Path(*file.parts[-2:])))
    faults = Faults()
    validate(document, (), SCHEMA, faults, label=f"recipe {name}")
    faults.raise_any()
    content = document.data
    variables = {role: values or {} for role, values in content["variables"].items()}
    return Recipe(name, content["summary"], variables, document, own)
