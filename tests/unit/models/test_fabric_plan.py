"""Laws of the fabric's addresses."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.models.fabric.plan import SIZES, Link, address_of, links, links_of
from tests.errors import fails

FIRST = "192.168.100.0/24"


@st.composite
def fabrics(draw: st.DrawFn) -> tuple[Any, list[str], dict[str, tuple[Link, ...]]]:
    topology: Any = draw(st.sampled_from(sorted(SIZES)))
    least, most = SIZES[topology]
    members = [f"n{number}" for number in range(draw(st.integers(least, min(most, 9))))]
    return topology, members, {node: links(topology, members, node, FIRST) for node in members}


@given(fabrics())
def test_twins_are_never_in_one_subnet(fabric: Any) -> None:
    _, _, found = fabric
    for mine in found.values():
        networks = [ipaddress.ip_interface(each.address).network for each in mine]
        assert len(set(networks)) == len(networks)


@given(fabrics())
def test_both_ends_of_a_link_are_in_one_subnet_and_name_each_other(fabric: Any) -> None:
    _, _, found = fabric
    for node, mine in found.items():
        for link in mine:
            network = ipaddress.ip_interface(link.address).network
            for peer, address in link.peers:
                assert ipaddress.ip_address(address) in network
                there = [each for each in found[peer] if each.address == f"{address}/{network.prefixlen}"]
                assert [each.twin for each in there] == [link.twin]
                assert (node, link.address.partition("/")[0]) in there[0].peers


@given(fabrics())
def test_no_address_is_given_twice(fabric: Any) -> None:
    addresses = [each.address for mine in fabric[2].values() for each in mine]
    assert len(set(addresses)) == len(addresses)


@given(fabrics())
def test_a_ring_connects_port_0_to_port_1_of_the_next(fabric: Any) -> None:
    topology, members, found = fabric
    if topology != "ring":
        return
    for at, node in enumerate(members):
        following = members[(at + 1) % len(members)]
        assert {peer for each in found[node] if each.port == "p0" for peer, _ in each.peers} == {following}
        assert {peer for each in found[following] if each.port == "p1" for peer, _ in each.peers} == {node}


@given(fabrics())
def test_every_two_nodes_meet_at_a_switch_and_neighbours_only_in_a_ring(fabric: Any) -> None:
    topology, members, found = fabric
    for at, other in combinations(range(len(members)), 2):
        near = topology != "ring" or abs(at - other) in (1, len(members) - 1)
        meet = any(peer == members[other] for each in found[members[at]] for peer, _ in each.peers)
        assert meet == near


def test_a_pair_has_nvidia_s_addresses() -> None:
    assert [each.address for each in links("pair", ["a", "b"], "b", FIRST)] == [
        "192.168.100.11/24",
        "192.168.101.11/24",
    ]


@pytest.mark.parametrize(("topology", "count"), [("pair", 1), ("pair", 3), ("ring", 2), ("switch", 1), ("switch", 201)])
def test_a_number_of_nodes_that_a_topology_cannot_have_is_refused(topology: Any, count: int) -> None:
    with fails("fabric-topology-size"):
        links(topology, [f"n{number}" for number in range(count)], "n0", FIRST)


@pytest.mark.parametrize("subnet", ["8.8.8.0/24", "192.168.100.1/24", "192.168.100.0/30", "x", "192.168.255.0/24"])
def test_a_subnet_that_is_public_or_too_small_is_refused(subnet: str) -> None:
    with fails("fabric-subnet-invalid"):
        links("ring", ["a", "b", "c"], "c", subnet)


def nodes(topology: str | None, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {name: {"fabric": {"topology": topology, "subnet": FIRST}, "state": "present"} for name in ("a", "b")}
    return {**found, **more}


def test_members_are_the_nodes_that_declare_the_same() -> None:
    others = {"c": {"fabric": {"topology": "pair", "subnet": "10.0.0.0/24"}}, "d": {"fabric": {}}}
    assert links_of("b", nodes("pair", **others))[0].address == "192.168.100.11/24"
    assert links_of("d", nodes("pair", **others)) == ()
    retired = {"c": {"fabric": {"topology": "pair", "subnet": FIRST}, "state": "retired"}}
    assert len(links_of("a", nodes("pair", **retired))) == 2


def test_a_node_outside_the_listed_members_is_refused() -> None:
    declared = {"fabric": {"topology": "pair", "subnet": FIRST, "members": ["a", "b"]}}
    with fails("fabric-node-not-member"):
        links_of("c", {**nodes(None), "c": declared})


def test_the_address_of_a_node_is_the_declared_one_or_its_first_and_none_in_a_ring() -> None:
    assert address_of("a", nodes("pair")) == "192.168.100.10"
    assert address_of("a", {"a": {"fabric": {"address": "10.1.1.1"}}}) == "10.1.1.1"
    ring = {name: {"fabric": {"topology": "ring", "subnet": FIRST}} for name in "abc"}
    assert address_of("a", ring) is None
