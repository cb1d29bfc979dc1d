"""The one JSON Schema."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from sparkops.inventory.json_schema import schema
from tests.unit.inventory.project import Project

GOOD = {"version": 1, "cluster": "c", "nodes": {"a": None}}


def check(project: Project, **more: object) -> list[str]:
    return [error.message for error in Draft202012Validator(schema(project.folder)).iter_errors({**GOOD, **more})]


def test_it_is_a_valid_schema_and_the_same_each_time(project: Project) -> None:
    Draft202012Validator.check_schema(schema(project.folder))
    assert json.dumps(schema(project.folder)) == json.dumps(schema(project.folder))


@pytest.mark.parametrize(
    "part",
    [
        {"nodes": {"a": {"fabric": {"address": "10.0.0.1"}}}},
        {"services": {"q": {"nodes": ["a"], "port": 8000, "image": {"reference": "x"}}}},
        {"vars": {"fabric": {"mtu": None}}},
    ],
)
def test_it_takes_what_the_loader_takes(project: Project, part: dict[str, object]) -> None:
    assert check(project, **part) == []


@pytest.mark.parametrize(
    "part",
    [
        {"nodes": {"a": {"fabric": {"adress": "x"}}}},
        {"services": {"q": {"nodes": ["a"], "prt": 8000}}},
        {"services": {"q": {"nodes": ["a"], "per_node": {"a": {"prt": 1}}}}},
        {"vars": {"fabrik": {}}},
        {"version": 2},
    ],
)
def test_it_refuses_what_the_loader_refuses(project: Project, part: dict[str, object]) -> None:
    assert check(project, **part) != []


def test_it_carries_the_variables_of_a_users_own_role(project: Project) -> None:
    project.role("motd", "summary: hi\nscope: node\nvariables: {properties: {text: {type: string}}}\nresources: []\n")
    assert "text" in schema(project.folder)["$defs"]["motd"]["properties"]
