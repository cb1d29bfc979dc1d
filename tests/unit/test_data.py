"""The data folders hold what they promise: every example compiles as it stands, and every recipe can be used."""

from datetime import date
from pathlib import Path

import pytest

from sparkops.compile.compiler import compile_inventory
from sparkops.core import data
from sparkops.fit.fit import Fit
from sparkops.fit.services import fit_inventory
from sparkops.fit.verdict import verdict
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.inventory.recipes import read_recipe, recipe_files
from sparkops.lint.declared import lint_inventory
from sparkops.models.argv import serve_argv
from sparkops.models.engine import engine
from sparkops.models.serve_line import parse
from sparkops.operate.render import render

INVENTORIES = sorted(data.bundled("inventories").glob("*.yml"))


@pytest.mark.parametrize("path", INVENTORIES, ids=lambda path: path.stem)
def test_an_example_compiles_as_it_stands(path: Path) -> None:
    assert compile_inventory(load(path)).resources


@pytest.mark.parametrize("name", recipe_files(None))
def test_a_recipe_makes_a_service_on_as_many_nodes_as_it_takes(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, None)
    nodes = [f"n{index}" for index in range(recipe.nodes)]
    listed = "".join(
        f"  {node}: {{host: 192.0.2.{i}, fabric: {{address: 198.51.100.{i}}}}}\n" for i, node in enumerate(nodes)
    )
    (tmp_path / "inventory.yml").write_text(
        f"version: 1\ncluster: x\nnodes:\n{listed}services: {{s: {{recipe: {name}, nodes: [{', '.join(nodes)}]}}}}\n"
    )
    inventory = load(tmp_path / "inventory.yml")
    kinds = {resource.kind for resource in compile_inventory(inventory).resources}
    assert {"image", "checkpoint", "unit", "probe"} <= kinds
    found = {each.id for each in lint_inventory(inventory, date(2026, 1, 1))}
    assert [each for each in lint_inventory(inventory, date(2026, 1, 1)) if each.severity == "error"] == []
    assert not found & {"model-unknown", "tool-parser-of-family", "reasoning-parser-of-family", "engine-unlisted"}
    assert "speculative-batch-not-captured" not in found or name in PUBLISHED
    _fits(name, inventory)
    for rank, node in enumerate(nodes):
        shown = {each.title: each.text for each in render(inventory, node, "s")}
        assert "ExecStart=" in shown["unit s.service"]
        assert (f"--node-rank {rank}" in shown["arguments of s"]) == (recipe.nodes > 1)


def _fits(name: str, inventory: Inventory) -> None:
    """What a recipe asks for fits, or it says itself that this is not known."""
    fit = fit_inventory(inventory)["s"]
    assert isinstance(fit, Fit) and not fit.refused
    told = any("whether it fits" in each for each in read_recipe(name, None).document.data["unverified"])
    assert fit.fits or (fit.fits is None and told) or name in PUBLISHED, verdict(fit)


PUBLISHED = ("qwen3.5-122b-a10b-dflash", "qwen3.5-122b-a10b-hybrid-legacy", "qwen3.5-397b-a17b-2x")
"""Recipes as their authors run them: streams that share a pool, not all at full length, or weights up to the limit."""
WRITTEN = ("max-model-len", "max-num-seqs", "max-num-batched-tokens", "gpu-memory-utilization", "kv-cache-dtype")


@pytest.mark.parametrize("name", recipe_files(None))
def test_a_recipe_leaves_nothing_to_the_engines_defaults_that_differ_by_version(name: str) -> None:
    recipe = read_recipe(name, None)
    serve = recipe.variables["service"]["serve"]
    assert {*WRITTEN, "enable-prefix-caching", "tool-call-parser"} <= set(serve)
    assert "reasoning-parser" in serve or any(
        "no reasoning parser" in each for each in recipe.document.data["unverified"]
    )
    assert serve["gpu-memory-utilization"] <= 0.85
    assert recipe.model and recipe.engine
    told = recipe.document.data
    assert told["sources"] and told["unverified"] and "speeds" in told
    assert recipe.variables["image"].get("build") or recipe.engine in recipe.variables["image"]["pull"]


@pytest.mark.parametrize("name", recipe_files(None))
def test_the_recipes_engine_knows_every_word_of_it(name: str) -> None:
    recipe = read_recipe(name, None)
    service, known = recipe.variables["service"], engine(recipe.engine or "")
    line = parse(serve_argv(["serve"], "/model", service["serve"]), known)
    assert not line.problems and not line.abbreviated
    assert known.exact
    unknown = [name for name in service.get("environment", {}) if name.startswith("VLLM_")]
    assert set(unknown) <= known.environment
    assert line.get("tool-call-parser") in known.tool_parsers
    assert line.get("reasoning-parser") in (None, *known.reasoning_parsers)


@pytest.mark.parametrize("name", recipe_files(None))
def test_a_recipe_is_about_one_page(name: str) -> None:
    assert len(recipe_files(None)[name].read_text().splitlines()) <= 80
