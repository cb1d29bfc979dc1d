"""One engine over two real nodes: a rank on each, and only the head answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Shell, until
from tests.lab.lab import Lab
from tests.lab.node import Node

UNIT = "qwen.service"


def inventory(lab: Lab, head: Node, other: Node) -> dict[str, Any]:
    """A service with tensor parallel size 2; the second rank's engine never opens a port, as a headless one."""
    return {
        "version": 1,
        "cluster": "tests",
        "connection": {"user": "root"},
        "nodes": {head.name: {"fabric": {"address": "10.9.9.1"}}, other.name: {"fabric": {"address": "10.9.9.2"}}},
        "services": {
            "qwen": {
                "nodes": [head.name, other.name],
                "image": {"pull": lab.engine_image.reference},
                "health": {"limit_seconds": 3},
                "model": "/srv/tiny",
                "command": ["serve"],
                "serve": {"tensor-parallel-size": 2},
                "gpus": None,
                "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
                "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
                "timeouts": {
                    "first_boot_seconds": 60,
                    "cold_start_seconds": 60,
                    "stop_seconds": 5,
                    "watchdog_seconds": 12,
                    "restart_seconds": 1,
                },
                "per_node": {other.name: {"environment": {"LAB_ENGINE": "never-ready"}}},
            }
        },
    }


RDMA = """
cp -a /sys/class /run/class 2>/dev/null || true  # some attributes can only be written
mkdir -p /run/class/infiniband/rocep1s0f0/ports/1/gids /run/class/infiniband/rocep1s0f0/ports/1/hw_counters
mkdir -p /run/class/infiniband/rocep1s0f0/ports/1/gid_attrs/types
cd /run/class/infiniband/rocep1s0f0/ports/1
echo 0000:0000:0000:0000:0000:ffff:c0a8:6401 > gids/0
echo RoCE v2 > gid_attrs/types/0
echo 17 > hw_counters/out_of_sequence
mount --bind /run/class /sys/class
"""
"""An RDMA device where the lab's machine has none: its class folder with one more entry."""


def declared(lab: Lab, shell: Shell, head: Node, other: Node) -> list[str]:
    """The service's inventory and model, and the roles that make it run."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    for node in (head, other):
        node.exec("mkdir", "-p", "/srv/tiny")
        node.write("/srv/tiny/config.json", b"{}")
        node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
    shell.write("inventory.yml", json.dumps(inventory(lab, head, other)))
    return [word for role in ("image", "service", "health") for word in ("--role", role)]


def test_a_rank_on_each_node_and_the_head_answers(lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    head, other = nodes(2)
    roles = declared(lab, shell, head, other)

    shell.json("apply", "inventory.yml", *roles, "--yes")

    argv = json.loads(head.text("curl", "-sS", "http://127.0.0.1:8000/lab/argv"))
    words = " ".join(argv["argv"])
    assert "--master-addr 10.9.9.1 --nnodes 2 --node-rank 0" in words and "--headless" not in words
    assert argv["environment"]["VLLM_HOST_IP"] == "10.9.9.1"
    for _ in range(60):  # the lab's head answers without its ranks, which got the image later
        if (state := other.text("systemctl", "show", "-P", "ActiveState", UNIT).strip()) == "active":
            break
        time.sleep(0.5)
    assert state == "active"
    assert "rank 1 of an engine" in other.text("systemctl", "show", "-P", "StatusText", UNIT)
    started = other.text("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", UNIT)
    assert shell.json("apply", "inventory.yml", *roles)["steps"] == [], "a second apply changes nothing"
    told = shell.json("status")
    assert [rank["unit"] for rank in told["services"][0]["ranks"]] == [UNIT, UNIT]
    assert told["services"][0]["serving"]
    assert other.text("systemctl", "show", "-P", "ExecMainStartTimestampMonotonic", UNIT) == started


def test_what_moves_on_the_links_below_a_running_engine_is_drift(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    head, other = nodes(2)
    roles = declared(lab, shell, head, other)
    for node in (head, other):
        node.exec("sh", "-ec", RDMA)
    shell.json("apply", "inventory.yml", *roles, "--yes")
    for node in (head, other):
        until(lambda node=node: node.exists("/var/lib/sparkops/services/qwen/rdma-at-start.json"))

    assert moved(shell) == set(), "as it was when the engine started"

    port = "/sys/class/infiniband/rocep1s0f0/ports/1"
    head.exec("sh", "-ec", f"echo 22 > {port}/hw_counters/out_of_sequence")
    other.exec("sh", "-ec", f"echo 0 > {port}/hw_counters/out_of_sequence; mv {port}/gids/0 {port}/gids/1")
    other.exec("sh", "-ec", f"echo 0 > {port}/gids/0; mv {port}/gid_attrs/types/0 {port}/gid_attrs/types/1")

    assert moved(shell) == {("rank-packets-lost", head.name), ("rank-gid-moved", other.name)}


def moved(shell: Shell) -> set[tuple[str, str]]:
    found = shell.json("drift", "--role", "uniform", status=None)["findings"]
    return {(each["id"], each["node"]) for each in found if each["resource"].startswith("rank qwen")}
