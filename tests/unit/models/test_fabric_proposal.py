"""What is proposed from the facts of nodes, and what is only noted."""

from __future__ import annotations

from typing import Any

from sparkops.models.fabric.proposal import propose


def node(
    name: str, cabled: str = "p0", addresses: dict[str, str] | None = None, sees: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """A node's facts: ports p0 and p1 with two rails each; `addresses` and `sees` (MACs) by rail, such as `p0/1`."""
    rails = {}
    for port in ("p0", "p1"):
        for twin in (0, 1):
            slot = f"{port}/{twin}"
            given = (addresses or {}).get(slot)
            rails[slot] = {
                "port": port,
                "mac": f"{name}:{slot}",
                "addresses": [given] if given else [],
                "neighbours": (sees or {}).get(slot, []),
            }
    return {"present": True, "cabled": cabled.split(), "rails": rails}


def notes(proposal: Any) -> list[str]:
    return [each.id for each in proposal.notes]


def test_two_nodes_that_see_each_other_are_a_pair() -> None:
    found = propose({"a": node("a", sees={"p0/0": ["b:p0/0"]}), "b": node("b")})
    assert (found.topology, found.members, notes(found)) == ("pair", ("a", "b"), [])
    assert found.subnet == "192.168.100.0/24"


def test_addresses_that_are_there_are_kept() -> None:
    given = {name: node(name, addresses={"p0/0": f"192.168.100.1{at}/24"}) for at, name in enumerate("ab")}
    found = propose(given, ["192.168.100.0/24"])
    assert found.addresses == {"a": "192.168.100.10", "b": "192.168.100.11"} and found.subnet == ""


def test_two_fresh_nodes_are_proposed_and_said_to_be_unproven() -> None:
    found = propose({"a": node("a"), "b": node("b")})
    assert (found.topology, notes(found)) == ("pair", ["discover-cable-unproven"])


def test_a_subnet_that_a_node_uses_is_not_proposed() -> None:
    pair = {"a": node("a"), "b": node("b")}
    assert propose(pair, ["192.168.101.0/24"]).subnet == "192.168.176.0/24"
    assert propose(pair, ["192.168.0.0/16", "fd00::/64"]).subnet == "10.177.0.0/24"


def test_a_ring_has_its_order_by_the_cables() -> None:
    sees = {"a": "c:p1/0", "c": "b:p1/0", "b": "a:p1/0"}
    found = propose({name: node(name, "p0 p1", sees={"p0/0": [sees[name]]}) for name in "abc"})
    assert (found.topology, found.members, notes(found)) == ("ring", ("a", "c", "b"), [])


def test_the_order_of_a_ring_that_is_not_seen_is_not_guessed() -> None:
    found = propose({name: node(name, "p0 p1") for name in "abc"})
    assert (found.topology, notes(found)) == ("ring", ["discover-order-unknown"])


def test_three_nodes_with_a_cable_each_are_at_a_switch() -> None:
    both = {"p0/0": ["a:p0/0", "b:p0/0", "c:p0/0"]}
    found = propose({name: node(name, sees=both) for name in "abc"})
    assert (found.topology, notes(found)) == ("switch", [])


def test_a_second_cable_is_told_from_the_fabric_by_what_is_seen_on_it() -> None:
    found = propose({"a": node("a", "p0 p1", sees={"p1/0": ["b:p0/0"]}), "b": node("b")})
    assert (found.topology, dict(found.ports)) == ("pair", {"a": "p1"})
    unsure = propose({"a": node("a", "p0 p1"), "b": node("b")})
    assert "discover-port-unknown" in notes(unsure) and not unsure.ports


def test_a_node_without_a_link_is_no_member() -> None:
    found = propose({"a": node("a"), "b": node("b", ""), "c": {"present": False}})
    assert (found.topology, found.members) == (None, ("a",))
    assert notes(found) == ["discover-not-connected", "discover-not-connected"]
