"""What `init` proposes for what it saw, and that the text is an inventory."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparkops.inventory.load import load
from sparkops.lint.check import refusing
from sparkops.lint.declared import lint_inventory
from sparkops.operate.first_contact.first_inventory import (
    Engine,
    Found,
    cluster_name,
    inventory,
    node_names,
    propose,
    remarks,
)
from sparkops.operate.recipes import every

RECIPES = list(every(None))
MODEL = "Qwen/Qwen3.6-35B-A3B-FP8"


def machine(gib: float | None = 119.7, name: str = "spark-5a3c", **more: Any) -> Found:
    facts: dict[str, Any] = {"os": {"hostname": name, "pretty": "Ubuntu 24.04", "kernel": "6.14"}}
    facts |= {"memory": {"total_bytes": gib * 2**30}} if gib is not None else {}
    facts |= more.pop("facts", {})
    return Found(**{"host": "192.168.1.11", "user": "nvidia", "facts": facts, **more})


def written(tmp_path: Path, *found: Found) -> tuple[Path, str]:
    text, _ = inventory(found, "rack", RECIPES)
    path = tmp_path / "inventory.yml"
    path.write_text(text)
    return path, text


@pytest.mark.parametrize("gib", [119.7, 100.0, 70.0, 24.0, None])
def test_what_is_written_is_an_inventory_without_errors_whose_recipe_fits(gib: float | None, tmp_path: Path) -> None:
    path, _ = written(tmp_path, machine(gib))
    found = load(path)
    assert not refusing(lint_inventory(found, date(2026, 1, 1)))
    for service in found.services.values():
        needed = found.variables(service.nodes[0], service.name)["service"]["limits"]["memory_free_gib"]
        assert service.recipe is not None and (gib is None or needed < gib)
    assert bool(found.services) == (gib != 24.0), "nothing fits 24 GiB, and nothing that does not fit is written"


def test_the_largest_model_that_fits_is_proposed_by_its_fastest_recipe() -> None:
    best = propose(machine(), RECIPES)
    assert best.recipe is not None and best.recipe.name == "qwen3.5-122b-a10b-int4"
    smaller = propose(machine(72.0), RECIPES)
    assert smaller.recipe is not None and smaller.recipe.model in ("Qwen3.5-35B-A3B", "Qwen3.6-35B-A3B")


@pytest.mark.parametrize(
    "words", [f"serve {MODEL} --port 9", "serve /m /home/a/.cache/models--Qwen--Qwen3.6-35B-A3B-FP8/x"]
)
def test_what_runs_already_is_proposed_at_its_port_and_adopt_is_named(words: str, tmp_path: Path) -> None:
    there = machine(engines=(Engine("container", "vllm", 9, words),), listening=(9,))
    best = propose(there, RECIPES)
    assert best.recipe is not None and best.recipe.name == "qwen3.6-35b-a3b"
    path, text = written(tmp_path, there)
    assert "`sparkops adopt spark-5a3c qwen`" in text
    assert load(path).variables("spark-5a3c", "qwen")["service"]["port"] == 9


def test_what_runs_with_a_model_that_no_recipe_has_is_not_taken_for_another(tmp_path: Path) -> None:
    there = machine(engines=(Engine("unit", "mine.service", 8000, "vllm serve org/other"),))
    assert propose(there, RECIPES).recipe is None
    path, text = written(tmp_path, there)
    assert "`sparkops recipe new ORG/NAME`" in text and "mine.service serves there already" in text
    assert load(path).services == {}


def test_a_taken_port_is_not_proposed() -> None:
    assert propose(machine(listening=(22, 8000)), RECIPES).port == 8001
    assert propose(machine(), RECIPES).port == 8000


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=80), st.text(max_size=40), st.text(max_size=40))
@example("0", "", "null")
@example("no", "x: y", "1e5")
def test_whatever_a_machine_says_the_text_is_a_valid_inventory(name: str, words: str, folder: str) -> None:
    facts = {"gpu": {"name": words, "driver_version": words}, "memory": {"total_bytes": 1.2e11}}
    found = machine(name=name, facts=facts, engines=(Engine("unit", "x.service", 8000, words),))
    text, _ = inventory([found], cluster_name([found], folder), RECIPES)
    assert list(yaml.safe_load(text)["nodes"]) == node_names([found])


@pytest.mark.parametrize(
    ("names", "cluster"), [(["spark-5a3c12"], "spark-5a3c12"), (["spark-01", "spark-02"], "spark"), ([], "my-rack")]
)
def test_a_cluster_is_named_after_the_first_machine_or_the_folder(names: list[str], cluster: str) -> None:
    assert cluster_name([machine(name=each) for each in names], "My Rack") == cluster


def test_machines_of_one_name_are_told_apart_by_their_addresses() -> None:
    twins = [machine(name="spark"), machine(name="spark", host="192.168.1.12"), machine(name="other")]
    assert node_names(twins) == ["192-168-1-11", "192-168-1-12", "other"]


def test_a_driver_with_a_bad_name_is_told() -> None:
    gpu = {"gpu": {"name": "NVIDIA GB10", "driver_version": "590.44.01", "cuda_version": "13.1"}}
    assert any("590.44.01: CUDA graph capture" in each for each in remarks(machine(facts=gpu)))
