"""The bundled recipes beside what sparkops does by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkops.core.data import bundled, parsed
from sparkops.models.rank_environment import OF_HOST
from sparkops.proposing.recipe_text import NEEDS

RECIPES = sorted(bundled("recipes").glob("*.yml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_recipe_asks_for_what_is_found_on_each_host(path: Path) -> None:
    recipe = parsed(path)
    needs = " ".join([*recipe.get("needs", []), *NEEDS])
    environment = recipe["variables"].get("service", {}).get("environment", {})
    assert [name for name in OF_HOST if name in needs or name in environment] == []
