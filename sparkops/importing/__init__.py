"""Making a recipe of another project's: the content tells the format; what cannot be carried over is reported.

Formats: recipes of sparkrun and its registries, eugr's, those of vllm-project/recipes, a compose file, and a plain
`vllm serve` or `docker run` line. Their shapes were read in those projects' public files in 2026. A recipe made here
holds no secret: what looks like one becomes a reference to the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from sparkops.core.errors import InventoryError
from sparkops.importing import compose, lines, templates, vllm_recipes
from sparkops.importing.recipe_draft import Choice, Imported
from sparkops.inventory.document import parse
from sparkops.inventory.faults import Faults
from sparkops.inventory.validate import validate

__all__ = ["Choice", "Imported", "convert"]

FORMATS = (
    "a recipe of sparkrun or eugr (command, container, model), of vllm-project/recipes (meta, model, variants), "
    "a compose file (services), or a line with `vllm serve` or `docker run`"
)


def convert(content: str, name: str, choice: Choice) -> Imported:
    """The recipe in `content`, which came from `name`. Raises InventoryError where no format fits, or one is broken."""
    if lines.is_one(content):
        return lines.read(content, name, choice).finished()
    if lines.is_script(content, name):
        raise InventoryError.of("import-script-without-vllm", where=name)
    document = parse(content, name=name, folder=Path())
    if not isinstance(document.data, Mapping):
        raise InventoryError.of("import-format-unknown", where=name, formats=FORMATS)
    form = _format(document.data, name)
    faults = Faults()
    validate(document, (), form.SHAPE, faults)
    faults.raise_any()
    made: Imported = form.read(document.data, name, choice).finished()
    return made


def _format(content: Mapping[str, object], name: str) -> ModuleType:
    """The module that reads a file with these keys."""
    if isinstance(content.get("variables"), Mapping):
        raise InventoryError.of("import-already-recipe", where=name)
    if isinstance(content.get("services"), Mapping):
        return compose
    if "meta" in content and isinstance(content.get("model"), Mapping):
        return vllm_recipes
    if isinstance(content.get("command"), str) or (
        "model" in content and ("container" in content or "runtime" in content)
    ):
        return templates
    raise InventoryError.of(
        "import-format-unknown-keys", where=name, content=", ".join(content) or "none", formats=FORMATS
    )
