"""Findings about engines over several nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkops.inventory.load import load
from sparkops.lint.declared import lint_inventory
from tests.unit.lint.test_declared import HEAD, TODAY, found, ids, service

TWO = "spark-01, spark-02"


def engine(name: str, more: str = "", serve: str = "", nodes: str = TWO) -> str:
    return service(name, f"tensor-parallel-size: 2{serve}", more, nodes)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("VLLM_HOST_IP", "address-of-all-ranks"),
        ("NCCL_IB_HCA", "host-value-on-all-ranks"),
        ("MN_IF_NAME", "host-value-on-all-ranks"),
    ],
)
def test_one_value_for_all_hosts_is_found(tmp_path: Path, name: str, id: str) -> None:
    assert id in ids(found(tmp_path, engine("qwen", f"    environment: {{{name}: x}}\n")))


def test_a_value_of_each_host_is_right(tmp_path: Path) -> None:
    each = "    per_node: {spark-01: {environment: {NCCL_IB_HCA: a}}, spark-02: {environment: {NCCL_IB_HCA: b}}}\n"
    assert ids(found(tmp_path, engine("qwen", each))) == ids(found(tmp_path, engine("qwen")))


def test_two_engines_of_one_head_take_one_port(tmp_path: Path) -> None:
    both = [engine("one"), engine("two", "    port: 8001\n")]
    assert "master-port-taken-twice" in ids(found(tmp_path, *both))
    own = [engine("one"), engine("two", "    port: 8001\n", ", master-port: 29502")]
    assert "master-port-taken-twice" not in ids(found(tmp_path, *own))
    exclusive = [engine("one"), engine("two", "    port: 8001\n    conflicts: [one.service]\n")]
    assert "master-port-taken-twice" not in ids(found(tmp_path, *exclusive))


def test_ranks_of_two_engines_take_one_udp_port(tmp_path: Path) -> None:
    turned = "spark-02, spark-01"
    assert "group-port-taken-twice" in ids(found(tmp_path, engine("one"), engine("two", nodes=turned)))
    own = engine("two", "    port: 8001\n", nodes=turned)
    assert "group-port-taken-twice" not in ids(found(tmp_path, engine("one"), own))
    alone = service("two", nodes="spark-02")
    assert "group-port-taken-twice" not in ids(found(tmp_path, engine("one"), alone))
    exclusive = engine("two", "    conflicts: [one.service]\n", nodes=turned)
    assert "group-port-taken-twice" not in ids(found(tmp_path, engine("one"), exclusive))


def test_more_than_two_nodes_say_how_they_are_connected(tmp_path: Path) -> None:
    def of_three(more: str = "") -> list[str]:
        path = tmp_path / "inventory.yml"
        head = HEAD.replace("services:\n", "  spark-03: {host: 192.0.2.3}\nservices:\n")
        path.write_text(head + service("qwen", "pipeline-parallel-size: 3", nodes=f"{TWO}, spark-03") + more)
        return ids(lint_inventory(load(path), TODAY))

    assert "ring-not-declared" in of_three()
    assert "ring-not-declared" not in of_three("vars: {fabric: {topology: ring}}\n")
    assert "ring-not-declared" not in ids(found(tmp_path, engine("qwen")))
