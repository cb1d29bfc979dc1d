"""The bundled role `fabric`: what an inventory's topology comes to on its nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparkops.compile.compiler import compile_inventory
from sparkops.core.errors import InventoryError
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import load
from sparkops.resources.fabric import Fabric
from sparkops.resources.fabric_path import FabricPath
from sparkops.resources.require import Require
from sparkops.resources.unit import Unit


def inventory(tmp_path: Path, fabric: str, count: int = 2) -> Inventory:
    nodes = "".join(f"  spark-0{number}: {{}}\n" for number in range(1, count + 1))
    (tmp_path / "inventory.yml").write_text(
        f"version: 1\ncluster: rack\nvars: {{fabric: {{{fabric}}}}}\nnodes:\n{nodes}"
    )
    return load(tmp_path / "inventory.yml")


def links(loaded: Inventory) -> dict[str, dict[str, Any]]:
    """Slots with addresses, by node."""
    made = [each for each in compile_inventory(loaded).resources if isinstance(each, Fabric)]
    return {each.node: {link["slot"]: link["address"] for link in each.links} for each in made}


def test_a_pair_with_a_subnet_has_its_addresses(tmp_path: Path) -> None:
    loaded = inventory(tmp_path, "topology: pair, subnet: 192.168.100.0/24, mtu: 9000")
    assert links(loaded) == {
        "spark-01": {"cable/0": "192.168.100.10/24", "cable/1": "192.168.101.10/24"},
        "spark-02": {"cable/0": "192.168.100.11/24", "cable/1": "192.168.101.11/24"},
    }
    assert [loaded.fabric_address(node) for node in loaded.nodes] == ["192.168.100.10", "192.168.100.11"]


def test_a_ring_of_three_has_six_subnets(tmp_path: Path) -> None:
    found = links(inventory(tmp_path, "topology: ring, subnet: 192.168.0.0/24", 3))
    assert {address.rpartition(".")[0] for each in found.values() for address in each.values()} == {
        f"192.168.{number}" for number in range(6)
    }
    assert set(found["spark-01"]) == {"p0/0", "p0/1", "p1/0", "p1/1"}


def test_without_a_subnet_the_links_are_only_judged(tmp_path: Path) -> None:
    assert links(inventory(tmp_path, "topology: switch")) == {"spark-01": {}, "spark-02": {}}


def test_without_a_topology_nothing_is_asked(tmp_path: Path) -> None:
    resources = compile_inventory(inventory(tmp_path, "address: null")).resources
    assert not [each for each in resources if isinstance(each, Fabric)]
    assert not [each for each in resources if isinstance(each, Require) and each.label.startswith("fabric")]


def test_a_topology_with_the_wrong_number_of_nodes_is_refused_offline(tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as refused:
        compile_inventory(inventory(tmp_path, "topology: pair, subnet: 192.168.100.0/24", 3))
    assert refused.value.id == "fabric-topology-size"


RING = """
version: 1
cluster: rack
vars: {fabric: {topology: ring, subnet: 192.168.0.0/24, measure: true}}
nodes: {a: {}, b: {}, c: {}}
services:
  wide: {nodes: [a, b], image: {pull: "x/y:1"}, model: m, command: [serve], serve: {tensor-parallel-size: 2}}
  small: {nodes: [a], port: 8001, image: {pull: "x/y:1"}, model: m, command: [serve]}
"""


def test_every_rank_comes_after_the_cables_between_the_nodes_of_its_engine(tmp_path: Path) -> None:
    """Also at the end that measures nothing itself; a cable to a node outside the engine is not waited for there."""
    (tmp_path / "inventory.yml").write_text(RING)
    resources = {each.id: each for each in compile_inventory(load(tmp_path / "inventory.yml")).resources}
    paths = {each.id: each.measures for each in resources.values() if isinstance(each, FabricPath)}
    assert [id for id, measures in paths.items() if measures] == [
        "fabric_path a @b",
        "fabric_path a @c",
        "fabric_path b @c",
    ]
    assert [id for id, measures in paths.items() if not measures] == [
        "fabric_path b @a",
        "fabric_path c @a",
        "fabric_path c @b",
    ], "the other ends only tell what they are"
    units = {id: each.after for id, each in resources.items() if isinstance(each, Unit)}
    assert {each for each in units["unit wide.service @a"] if "fabric_path" in each} == {"fabric_path a @b"}
    assert {each for each in units["unit wide.service @b"] if "fabric_path" in each} == {"fabric_path a @b"}
    assert not [each for each in units["unit small.service @a"] if "fabric_path" in each]
