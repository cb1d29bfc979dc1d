"""What `--limit` selects."""

from __future__ import annotations

import pytest

from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import named, select
from tests.errors import fails
from tests.unit.inventory.project import Project


@pytest.fixture
def fleet(project: Project) -> Inventory:
    return project.load("""
        version: 1
        cluster: c
        groups: {rack: {nodes: [n1, n5]}}
        nodes: {n1: , n2: , n3: , n4: , n5: }
        services:
          one: {nodes: [n1, n2]}
          two: {nodes: [n2, n3]}
          four: {nodes: [n4]}
    """)


@pytest.mark.parametrize(
    ("patterns", "nodes"),
    [
        (None, "n1 n2 n3 n4 n5"),
        ([], "n1 n2 n3 n4 n5"),
        ("all", "n1 n2 n3 n4 n5"),
        ("n5", "n5"),
        ("n4,n5", "n4 n5"),
        (["n5", "n4"], "n4 n5"),
        ("n[45]", "n4 n5"),
        ("four", "n4"),
        ("f*", "n4"),
        ("n1", "n1 n2 n3"),
        ("rack", "n1 n2 n3 n5"),
        ("!four", "n1 n2 n3 n5"),
        ("rack,!one", "n5"),
        ("!one,!two", "n4 n5"),
    ],
)
def test_limit_takes_names_globs_services_and_exclusions(fleet: Inventory, patterns: str, nodes: str) -> None:
    assert " ".join(select(fleet, patterns)) == nodes


def test_an_exclusion_that_would_cut_a_service_in_two_is_refused(fleet: Inventory) -> None:
    with fails("limit-splits-service"):
        select(fleet, "n1,!n2")


def test_a_pattern_that_matches_nothing_tells_the_nearest_name(fleet: Inventory) -> None:
    with fails("limit-pattern-unknown"):
        select(fleet, "rak")


def test_a_limit_that_leaves_no_node_is_refused(fleet: Inventory) -> None:
    with fails("limit-empty"):
        select(fleet, "n5,!rack")


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("", "n1 n2 n3 n4 n5"),
        ("n1", "n1"),
        ("one", "n1 n2"),
        ("rack !one", "n5"),
        ("all !n[1-3]", "n4 n5"),
    ],
)
def test_what_only_looks_takes_the_named_nodes_and_no_others(fleet: Inventory, words: str, nodes: str) -> None:
    assert " ".join(named(fleet, words.split())) == nodes


@pytest.mark.parametrize(("words", "id"), [("rak", "limit-pattern-unknown"), ("n5 !rack", "selection-empty")])
def test_names_that_mean_no_node_are_refused(fleet: Inventory, words: str, id: str) -> None:
    with fails(id):
        named(fleet, words.split())
