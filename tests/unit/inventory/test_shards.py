"""What `--shard I/N` means: whole groups, each node in one part, the same parts on every machine."""

from __future__ import annotations

import random
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparkops.compile.compiler import compile_inventory
from sparkops.core.graph import components
from sparkops.fit.services import fit_services
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.limit import named, select
from sparkops.inventory.load import load
from sparkops.inventory.shards import Group, groups, sharded, shared_out
from sparkops.operate.services import selected
from tests.errors import fails
from tests.unit.inventory.project import Project

sets = st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=5), max_size=20)


@given(sets)
def test_components_are_disjoint_whole_and_no_larger_than_needed(given_sets: list[set[int]]) -> None:
    found = components(given_sets)
    assert sorted(chain(*found)) == sorted({each for one in given_sets for each in one}), "each is in one of them"
    assert all(any(each <= whole for whole in found) for each in given_sets)
    for whole in found:
        inside = [each for each in given_sets if each <= whole]
        reached = set(inside[0])
        for _ in inside:
            reached.update(*(each for each in inside if each & reached))
        assert reached == whole, "nothing is joined without a reason"


made_groups = st.lists(st.integers(1, 8), max_size=30).map(
    lambda sizes: [tuple(f"n{number:02}-{each}" for each in range(size)) for number, size in enumerate(sizes)]
)


@given(made_groups, st.integers(1, 12), st.randoms())
def test_parts_are_disjoint_whole_even_and_the_same_everywhere(
    found: list[Group], parts: int, chance: random.Random
) -> None:
    shared = shared_out(found, parts)
    assert len(shared) == parts
    assert sorted(chain(*shared)) == sorted(found), "each group is in one part, whole"
    sizes = [sum(map(len, part)) for part in shared]
    assert max(sizes) - min(sizes) <= max(map(len, found), default=0)
    other = list(found)
    chance.shuffle(other)
    assert [set(part) for part in shared_out(other, parts)] == [set(part) for part in shared]


FLEET = """
    version: 1
    cluster: c
    groups: {rack: {nodes: [n1, n5]}}
    nodes: {n1: , n2: , n3: , n4: , n5: , n6: , n7: }
    services:
      one: {nodes: [n1, n2]}
      two: {nodes: [n2, n3]}
      four: {nodes: [n4]}
"""


@pytest.fixture
def fleet(project: Project) -> Inventory:
    return project.load(FLEET)


def test_nodes_that_share_a_service_are_a_group_over_any_number_of_services(fleet: Inventory) -> None:
    assert groups(fleet) == (("n1", "n2", "n3"), ("n4",), ("n5",), ("n6",), ("n7",))


def test_nodes_of_a_fabric_are_a_group(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text(
        "version: 1\ncluster: c\ngroups:\n"
        "  ring: {nodes: [a, b, c], vars: {fabric: {topology: ring, subnet: 192.168.100.0/30}}}\n"
        "  pair: {nodes: [d, e], vars: {fabric: {topology: pair, subnet: 192.168.200.0/24}}}\n"
        "  listed: {nodes: [f], vars: {fabric: {topology: switch, subnet: 192.168.210.0/24, members: [f, g]}}}\n"
        "nodes: {a: , b: , c: , d: , e: , f: , g: , h: }\n"
    )
    assert groups(load(path)) == (("a", "b", "c"), ("d", "e"), ("f", "g"), ("h",))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.integers(1, 9), limit=st.sampled_from([(), ("rack",), ("!four",), ("n[4-7]",), ("one",)]))
def test_the_shards_together_are_what_the_whole_selects(fleet: Inventory, parts: int, limit: tuple[str, ...]) -> None:
    shards = [sharded(fleet, number, parts) for number in range(1, parts + 1)]
    for choose in (select, named):
        chosen = [choose(each, limit) for each in shards]
        assert sorted(chain(*chosen)) == sorted(choose(fleet, limit))
    compiled = [compile_inventory(each, limit=limit or None) for each in shards]
    resources = [each.id for part in compiled for each in part.resources]
    assert sorted(resources) == sorted(each.id for each in compile_inventory(fleet, limit=limit or None).resources)
    if not limit:
        assert sorted(chain(*(each.whole for each in compiled))) == sorted(fleet.nodes), "orphans are looked for"
    for each in shards:
        for service in fleet.services.values():
            assert len(set(service.nodes) & set(select(each, None))) in (0, len(service.nodes))


def test_a_shard_says_so_and_one_without_nodes_selects_none(fleet: Inventory) -> None:
    assert [each.id for each in sharded(fleet, 1, 1).notices][-1] == "shard-part"
    empty = sharded(fleet, 7, 9)
    assert (select(empty, None), named(empty, ()), compile_inventory(empty).nodes) == ((), (), ())


def test_services_are_those_of_the_shard(fleet: Inventory) -> None:
    first, second = (sharded(fleet, number, 2) for number in (1, 2))
    assert (selected(first, (), ("all",)), selected(second, (), ("all",))) == (("one", "two"), ("four",))
    with fails("no-service-on-nodes"):
        selected(second, ("one",), ())
    assert fit_services(second) == {}
    with fails("no-service-on-nodes"):
        fit_services(second, "one")


def test_what_expressions_see_is_the_whole_inventory(project: Project) -> None:
    project.role(
        "hosts",
        """
        summary: names all nodes
        scope: node
        resources:
          - file: /etc/names
            content: "{{ nodes | join(',') }}"
        """,
    )
    fleet = project.load(FLEET.replace("cluster: c\n", "cluster: c\n    roles: [hosts]\n"))
    whole = {each.id: each for each in compile_inventory(fleet).resources}
    for number in (1, 2, 3):
        for each in compile_inventory(sharded(fleet, number, 3)).resources:
            assert each == whole[each.id], "what is declared of a node does not depend on the shard"


def test_an_order_over_two_shards_is_refused(project: Project) -> None:
    project.role(
        "late",
        """
        summary: comes after another node
        scope: node
        resources:
          - file: /etc/late
            content: "x"
            after: ["file /etc/late @n1"]
            when: "{{ node.name == 'n5' }}"
          - file: /etc/late
            content: "x"
            when: "{{ node.name == 'n1' }}"
        """,
    )
    fleet = project.load(FLEET.replace("cluster: c\n", "cluster: c\n    roles: [late]\n"))
    assert compile_inventory(sharded(fleet, 1, 1)).whole
    with fails("after-in-other-shard"):
        for number in range(1, 6):
            compile_inventory(sharded(fleet, number, 5))
