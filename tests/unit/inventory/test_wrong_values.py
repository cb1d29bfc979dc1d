"""Inventories with wrong values in any place: each is understood, or refused with what and where, never a defect."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import sparkops
from sparkops.core.errors import SparkopsError
from tests.errors import fails

INVENTORIES = Path(__file__).parents[3] / "inventories"
VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, float("inf"), float("nan")),
    *("", "x", " ", "é", "\u0000", "{{", "{{ x }}", "{% if %}", "!", "a: b", "/", "../..", "~", "-x", "x" * 5000),
    *("2026-01-01", "0x10", "1_000", "all", "*", "a,b", "host:99999", "user@host:22:33", "sha256:zz"),
    *([], {}, [[]], [None], [{}], ["x"] * 3, {"a": 1}, {"": None}, {"x": {"y": {"z": [1]}}}),
)
KEYS = ("x", "", "renamed_from", "nodes", "serve", "rollout", "replicas", "accept", "vars", "x-y", 1, None, True)


def places(value: object) -> Iterator[tuple[dict[object, object] | list[object], object]]:
    """Every container of a document with a key or number that it has."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from places(inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield value, number
            yield from places(inner)


def mutated(document: object, draw: random.Random) -> object:
    changed = copy.deepcopy(document)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        there = list(places(changed))
        if not there:
            break
        holder, key = draw.choice(there)
        given = copy.deepcopy(draw.choice(VALUES))
        if draw.random() < 0.7:
            holder[key] = given  # type: ignore[index]
        elif isinstance(holder, list):
            holder.append(given)
        elif draw.random() < 0.5:
            holder[draw.choice(KEYS)] = given
        else:
            del holder[key]
    return changed


@pytest.mark.parametrize("name", ["one-spark.yml", "two-sparks.yml", "lab.yml"])
@pytest.mark.parametrize("seed", range(2))
def test_a_wrong_value_is_told_as_a_fault(name: str, seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"{name} {seed}")
    document = yaml.safe_load((INVENTORIES / name).read_text())
    file = tmp_path / "inventory.yml"
    refused = 0
    for _ in range(25):
        file.write_text(yaml.safe_dump(mutated(document, draw), allow_unicode=True))
        try:
            cluster = sparkops.load(file)
            cluster.lint()
            cluster.fit()
            assert cluster.compiled
        except SparkopsError as error:
            assert error.message.id and str(error)
            refused += 1
        except Exception as error:
            raise AssertionError(f"a defect by:\n{file.read_text()}") from error
    assert refused


@pytest.mark.parametrize(
    "text",
    [
        "vars: {driver: x}",
        "vars: {driver: [x]}",
        "services: {s: {nodes: [a], port: 8000, checkpoint: 5}}",
        "services: {s: {nodes: [a], port: 8000, command: [null]}}",
    ],
)
def test_what_is_no_mapping_of_variables_and_null_in_a_list_are_of_the_wrong_type(text: str, tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text(f"version: 1\ncluster: x\nnodes: {{a: {{}}}}\n{text}\n")
    with fails("value-type-wrong"):
        sparkops.load(tmp_path / "inventory.yml")


@pytest.mark.parametrize("day", ["2027-13-41", "2027-02-29", "tomorrow", "2027-1-1"])
def test_a_day_that_no_calendar_has_is_refused(day: str, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    accept = [{"id": "a.b", "reason": "x", "until": day}]
    path.write_text(yaml.safe_dump({"version": 1, "cluster": "a", "nodes": {"a": {}}, "accept": accept}))
    with fails("value-out-of-limits"):
        sparkops.load(path)


def test_a_number_with_a_point_is_no_whole_number(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("version: 1\ncluster: a\nnodes: {a: {connection: {port: 22.0}}}\n")
    with fails("value-type-wrong") as failed:
        sparkops.load(path)
    assert "write 22" in str(failed.value)


@pytest.mark.parametrize(
    "service",
    [
        "q: {nodes: [a], model: org/m, port: 8000, image: {pull: 'x:1'}, serve: {--max-model-len: 5}}",
        "q: {nodes: [a], model: org/m, port: 8000, image: {pull: 'x:1'}, serve: {port: 9000}}",
        "docker: {nodes: [a], model: org/m, port: 8000, image: {pull: 'x:1'}}",
    ],
)
def test_what_a_role_of_sparkops_refuses_is_told_once_and_where_it_was_declared(service: str, tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(f"version: 1\ncluster: a\nnodes: {{a: }}\nservices:\n  {service}\n")
    with pytest.raises(SparkopsError) as failed:
        _ = sparkops.load(path).compiled
    assert failed.value.where.endswith("inventory.yml:5:3")
    assert "role.yml" not in str(failed.value)
    assert str(failed.value).count("inventory.yml:5:3") == 1
