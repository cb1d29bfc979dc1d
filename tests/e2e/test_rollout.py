"""A service with two engines on two real nodes: changed one after the other, brought back when one fails its gate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Shell
from tests.lab.lab import Lab
from tests.lab.node import Node

UNIT = "qwen.service"
ROLES = [word for role in ("image", "service", "health", "rollout") for word in ("--role", role)]


class Cluster:
    """The service `qwen` with an engine on each node."""

    def __init__(self, lab: Lab, shell: Shell, nodes: list[Node]) -> None:
        self.lab, self.shell, self.nodes = lab, shell, nodes
        self.service: dict[str, Any] = {}
        header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
        for node in nodes:
            node.exec("mkdir", "-p", "/srv/tiny")
            node.write("/srv/tiny/config.json", b"{}")
            node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")

    def declare(self, mode: str = "", **rollout: Any) -> None:
        """The lab's engine in that mode; `service` has what is declared of it beside."""
        service = {
            "replicas": [[node.name] for node in self.nodes],
            "image": {"pull": self.lab.engine_image.reference},
            "health": {"limit_seconds": 15},
            "model": "/srv/tiny",
            "command": ["serve"],
            "gpus": None,
            "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "environment": {"LAB_ENGINE": mode},
            "timeouts": {
                "first_boot_seconds": 180,
                "cold_start_seconds": 180,
                "memory_seconds": 1,
                "docker_seconds": 30,
                "stop_seconds": 5,
                "watchdog_seconds": 60,
                "restart_seconds": 1,
            },
            "rollout": {"min_healthy_seconds": 0, **rollout},
            **self.service,
        }
        inventory = {
            "version": 1,
            "cluster": "tests",
            "connection": {"user": "root"},
            "nodes": {node.name: {} for node in self.nodes},
            "services": {"qwen": service},
        }
        self.shell.write("inventory.yml", json.dumps(inventory))

    def apply(self, *words: str, status: int | None = 0) -> dict[str, Any]:
        return self.shell.json("apply", "inventory.yml", *ROLES, "--yes", *words, status=status)

    def shown(self, name: str) -> list[str]:
        return [node.text("systemctl", "show", "-P", name, UNIT).strip() for node in self.nodes]

    def mode(self, node: Node) -> str:
        told = json.loads(node.text("curl", "-sS", "http://127.0.0.1:8000/lab/argv"))
        return str(told["environment"].get("LAB_ENGINE", ""))


@pytest.fixture
def cluster(lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]) -> Iterator[Cluster]:
    yield Cluster(lab, shell, nodes(2))


def states(report: dict[str, Any]) -> list[str]:
    print(report["rollouts"])
    return [each["state"] for each in report["rollouts"]]


def test_engines_change_one_after_the_other_and_what_fails_comes_back(cluster: Cluster) -> None:
    first, second = cluster.nodes
    cluster.declare("slow=1")
    report = cluster.apply()
    assert states(report) == ["done", "done"]
    assert set(report["endpoints"]) == {f"qwen @{first.name}", f"qwen @{second.name}"}
    assert cluster.apply()["steps"] == [], "a second apply changes nothing"

    cluster.declare("slow=2", min_healthy_seconds=2)
    assert states(cluster.apply()) == ["done", "done"]
    began = [int(each) for each in cluster.shown("ExecMainStartTimestampMonotonic")]
    assert began[1] - began[0] > 4_000_000, "load and healthy seconds of the first came before the second's start"

    before = cluster.shown("ExecMainPID")
    cluster.declare("crash", min_healthy_seconds=2)
    report = cluster.apply(status=4)
    assert states(report) == ["returned", "not started"]
    assert cluster.shown("ActiveState") == ["active", "active"]
    assert cluster.shown("ExecMainPID")[1] == before[1], "the second engine was not touched"
    assert [cluster.mode(node) for node in cluster.nodes] == ["slow=2", "slow=2"]
    taken = {each["resource"]: each["state"] for each in report["findings"] if each["id"] == "drift-taken-back"}
    assert taken[f"unit {UNIT} @{first.name}"] == "drifted", "what was done was taken back"

    drift = cluster.shell.json("drift", "inventory.yml", *ROLES, status=5)
    moved = {each["resource"]: each["origin"] for each in drift["findings"] if each["resource"] in taken}
    told = [each for each in drift["steps"] if each["id"] in taken]
    assert {*moved.values()} <= {"intentional", None}, f"the node has what it had before: {moved} {told}"
    report = cluster.apply(status=5)
    assert {each["id"] for each in report["violations"]} == {"generation-held"}
    assert cluster.mode(first) == "slow=2", "what was taken back is held"
    assert states(cluster.apply("--retry", status=4)) == ["returned", "not started"]

    cluster.declare("slow=3")
    assert states(cluster.apply()) == ["done", "done"]
    kept = cluster.shell.json("generations")["generations"]
    assert [len(each["generations"]) for each in kept.values()] == [3, 3]
    report = cluster.shell.json("rollback", "qwen", "--yes")
    assert {each["outcome"] for each in report["results"]} == {"done"}
    assert [cluster.mode(node) for node in cluster.nodes] == ["slow=2", "slow=2"]
    assert cluster.apply(status=5)["steps"], "it differs from the declaration, and is held"
    before = cluster.shown("ExecMainPID")
    refused = cluster.shell.run("rollback", "qwen", "--to", "99", "--yes", status=1)
    assert "generation-not-kept" in refused.stderr
    assert cluster.shown("ExecMainPID") == before


def test_a_wrong_answer_fails_the_gate_and_a_first_engine_has_nothing_to_return_to(cluster: Cluster) -> None:
    cluster.declare("", canaries=[{"prompt": "The capital of France is", "expect": "Berlin"}])
    report = cluster.apply(status=4)
    assert states(report) == ["nothing to return to", "not started"]
    assert "gate-canary-wrong" in {(each["reason"] or {}).get("id") for each in report["results"]}
    cluster.declare("", canaries=[{"prompt": "The capital of France is", "expect": "Paris"}])
    assert states(cluster.apply())[-1] == "done"
    assert cluster.shown("ActiveState") == ["active", "active"]
