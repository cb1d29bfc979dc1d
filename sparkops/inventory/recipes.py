"""Recipes: ready sets of variables for a service, one file each, found beside the inventory and then bundled.

What the variables mean is the roles' business. The other keys are for people, lint and fit: which model and engine it
is for, what speeds were published, what is not verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparkops.core import data
from sparkops.core.errors import InventoryError
from sparkops.inventory.document import Document, Where, read
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.merge import Variables
from sparkops.inventory.validate import validate


def _texts(description: str) -> dict[str, object]:
    return {"type": "array", "items": {"type": "string", "minLength": 1}, "description": description}


_RATE: Mapping[str, object] = {"type": "number", "exclusiveMinimum": 0}
SPEED: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["tokens_per_second", "source"],
    "properties": {
        "tokens_per_second": {
            "anyOf": [_RATE, {"type": "array", "items": _RATE, "minItems": 2, "maxItems": 2}],
            "description": "generated tokens a second of all streams together, or the least and the most",
        },
        "streams": {"type": "integer", "minimum": 1, "description": "requests at a time; 1 by default"},
        "with": {"type": "string", "description": "what was measured: engine, flags, kind of text"},
        "other": {"type": "boolean", "description": "whether it is of another recipe, for comparison"},
        "source": {"type": "string", "minLength": 1, "description": "who published it, and where"},
    },
}
SCHEMA: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["summary", "variables"],
    "properties": {
        "summary": {"type": "string", "minLength": 1, "description": "what the recipe serves, in one line"},
        "model": {"type": "string", "minLength": 1, "description": "the model whose geometry it is: knowledge/models"},
        "engine": {
            "type": "string",
            "pattern": "^[0-9]+(\\.[0-9]+)*[A-Za-z0-9.+-]*$",
            "description": "the version of vLLM in the image, in quotes: knowledge/engines",
        },
        "nodes": {"type": "integer", "minimum": 1, "description": "how many nodes one engine takes; 1"},
        "variables": {
            "type": "object",
            "additionalProperties": {"type": ["object", "null"]},
            "description": "a namespace per role: {image: {...}, checkpoint: {...}, service: {serve: {...}}}",
        },
        "needs": _texts("what the nodes must have beside what the recipe declares"),
        "speeds": {"type": "array", "items": SPEED, "description": "published speeds, all that were found"},
        "unverified": _texts("what was not verified by anyone known"),
        "sources": _texts("where the values come from"),
    },
}
PLACE: Where = ("variables",)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One recipe. `variables` maps a role's name to its variables.

    `model` is the name of its geometry and `engine` the engine's version, None where the file does not say; `nodes` is
    how many nodes one engine takes; `speeds` are as `SPEED` says. `own`: it does not come with sparkops.
    """

    name: str
    file: Path
    summary: str
    variables: Mapping[str, Variables] = field(repr=False)
    document: Document = field(repr=False)
    own: bool = False
    model: str | None = None
    engine: str | None = None
    nodes: int = 1
    speeds: Sequence[Variables] = field(default=(), repr=False)


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
        raise InventoryError.of("recipe-not-found", where=where, name=name, suggestion=suggest(name, files))
    file = files[name]
    own = beside is not None and file.parent == beside / "recipes"
    return _of(name, file, read(file, str(file) if own else str(Path(*file.parts[-2:]))), own)


def read_recipe_file(file: Path) -> Recipe:
    """The recipe in a file anywhere. Raises InventoryError."""
    return _of(file.stem, file, read(file), own=True)


def _of(name: str, file: Path, document: Document, own: bool) -> Recipe:
    faults = Faults()
    validate(document, (), SCHEMA, faults, label=f"recipe {name}")
    faults.raise_any()
    content = document.data
    return Recipe(
        name,
        file,
        content["summary"],
        {role: values or {} for role, values in content["variables"].items()},
        document,
        own,
        **{key: content[key] for key in ("model", "engine", "nodes", "speeds") if key in content},
    )
