"""A null in any place of the built-in roles' variables, and own roles in their place: never a traceback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.fit.services import fit_inventory
from sparkops.inventory.declarations import BUILT_IN, find_roles, types_of
from sparkops.inventory.load import load
from sparkops.lint.declared import lint_inventory
from tests.errors import fails

ROLES = find_roles(None)[0]
BARE = {"version": 1, "cluster": "x", "nodes": {"a": {"host": "192.0.2.1"}}}
SERVICE = {"nodes": ["a"], "port": 8000, "image": {"pull": "vllm/vllm-openai:v0.28.0"}, "model": "m"}


def paths(schema: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, part in schema.get("properties", {}).items():
        yield (*above, name)
        yield from paths(part, (*above, name))


def everything(path: Path) -> None:
    """Lint, fit and compile; each may refuse in words."""
    found = load(path)
    for use in (lambda: lint_inventory(found, date(2026, 1, 1)), lambda: fit_inventory(found)):
        use()
    try:
        compile_inventory(found)
    except InventoryError as error:
        assert not {"expression-failed", "expression-name-undefined"} & {each.id for each in (error, *error.others)}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_null_anywhere_leaves_the_default_where_null_is_no_value(name: str, tmp_path: Path) -> None:
    for path in paths(ROLES[name].variables):
        space: Any = None
        for part in reversed(path):
            space = {part: space}
        (tmp_path / "inventory.yml").write_text(
            yaml.safe_dump({**BARE, "vars": {name: space}, "services": {"s": {**SERVICE, "port": 8000}}})
        )
        try:
            everything(tmp_path / "inventory.yml")
        except InventoryError:
            raise
        except Exception as error:
            raise AssertionError(f"{name}.{'.'.join(path)}: null") from error


@pytest.mark.parametrize("service", [{"nodes": ["a"]}, SERVICE, {"nodes": ["a"], "recipe": "qwen3.5-35b-a3b"}])
@pytest.mark.parametrize("name", BUILT_IN)
def test_an_own_role_in_the_place_of_a_built_in_one_breaks_nothing(
    name: str, service: Mapping[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "roles" / name
    folder.mkdir(parents=True)
    (folder / "role.yml").write_text(
        f"summary: own\nscope: {ROLES[name].scope}\nvariables: {{type: object, properties: {{}}, "
        "additionalProperties: true}\nresources: []\n"
    )
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({**BARE, "services": {"s": dict(service)}}))
    everything(tmp_path / "inventory.yml")


@pytest.mark.parametrize(
    ("name", "variable"), [("image", "build"), ("checkpoint", "repository"), ("service", "environment")]
)
def test_an_own_role_gives_no_variable_that_others_read_another_type(name: str, variable: str, tmp_path: Path) -> None:
    folder = tmp_path / "roles" / name
    folder.mkdir(parents=True)
    (folder / "role.yml").write_text(
        f"summary: own\nscope: service\nvariables: {{type: object, properties: {{{variable}: {{type: integer}}}}}}\n"
        "resources: []\n"
    )
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(BARE))
    with fails("role-variable-type-changed"):
        load(tmp_path / "inventory.yml")


@pytest.mark.parametrize(
    ("part", "types"),
    [
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", None]}, {"string", "null"}),
        ({"oneOf": [{"const": "all"}, {"type": "array"}, {"type": "null"}]}, {"string", "array", "null"}),
        ({}, {"null", "boolean", "integer", "number", "string", "array", "object"}),
    ],
)
def test_the_types_of_a_schema(part: Mapping[str, Any], types: set[str]) -> None:
    assert types_of(part) == types
