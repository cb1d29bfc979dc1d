"""The data folders hold what they promise: every example compiles as it stands, and every recipe can be used."""

from pathlib import Path

import pytest

from sparkops.core import data
from sparkops.inventory.load import load
from sparkops.inventory.recipes import recipe_files
from sparkops.reconcile.compile import compile as build

INVENTORIES = sorted(data.bundled("inventories").glob("*.yml"))


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.stem)
def test_an_example_compiles_as_it_stands(path: Path) -> None:
    assert build(load(path)).resources


@pytest.mark.parametrize("name", recipe_files(None))
def test_a_recipe_makes_a_service(name: str, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(
        f"version: 1\ncluster: x\nnodes: {{a: {{host: 192.0.2.1}}}}\nservices: {{s: {{recipe: {name}, nodes: [a]}}}}\n"
    )
    kinds = {resource.kind for resource in build(load(path)).resources}
    assert {"image", "checkpoint", "unit", "probe"} <= kinds


@pytest.mark.parametrize("name", ["README.md", "docs/own-roles.md"])
def test_the_inventory_in_a_page_is_one(name: str, tmp_path: Path) -> None:
    page = data.PACKAGE.parent / name
    blocks = [part.split("```")[0] for part in page.read_text().split("```yaml\n")[1:]]
    found = [block for block in blocks if block.startswith("version: 1")]
    assert found
    for block in found:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "inventory.yml").write_text(block)
        for other in blocks:
            if other.startswith("summary:"):
                role = folder / "roles" / "motd"
                (role / "templates").mkdir(parents=True)
                (role / "role.yml").write_text(other)
                (role / "templates" / "motd.j2").write_text("{{ motd.text }}\n")
        assert build(load(folder / "inventory.yml")).resources
