"""One engine over real nodes: ranks that need each other, which start together, end together and start again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import images
from tests.lab.lab import FABRIC_SUBNET, Lab
from tests.lab.node import Node

UNIT = "qwen.service"
HEARTBEAT = 6.0
"""Seconds of silence after which a rank of these tests is lost."""
START = 15.0
"""Seconds within which all ranks run again after that."""


class Cluster:
    """The service `qwen`, one engine over all nodes; each step of it needs all ranks, over the fabric."""

    def __init__(self, lab: Lab, shell: Shell, nodes: list[Node]) -> None:
        self.lab, self.shell, self.nodes = lab, shell, nodes
        self.image = images.engine(lab.registry, lab.cache, tag="ranks").reference
        header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
        for node in nodes:
            node.exec("mkdir", "-p", "/srv/tiny")
            node.write("/srv/tiny/config.json", b"{}")
            node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
            node.plug(lab.fabric(), self.fabric(node))

    @staticmethod
    def fabric(node: Node) -> str:
        return f"{FABRIC_SUBNET}.{node.address.rpartition('.')[2]}"

    def declare(self, mode: str = "ranks", *, watchdog: float = 12, **group: Any) -> None:
        service = {
            "nodes": [node.name for node in self.nodes],
            "image": {"pull": self.image},
            "health": {"limit_seconds": 3},
            "model": "/srv/tiny",
            "command": ["serve"],
            "serve": {"tensor-parallel-size": len(self.nodes)},
            "environment": {"LAB_ENGINE": mode},
            "gpus": None,
            "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "group": {"heartbeat_seconds": HEARTBEAT, "minimum_uptime_seconds": 5, **group},
            "timeouts": {
                "first_boot_seconds": 60,
                "cold_start_seconds": 60,
                "memory_seconds": 5,
                "stop_seconds": 5,
                "probe_seconds": 4,
                "watchdog_seconds": watchdog,
                "restart_seconds": 1,
            },
        }
        inventory = {
            "version": 1,
            "cluster": "tests",
            "connection": {"user": "root"},
            "nodes": {node.name: {"fabric": {"address": self.fabric(node)}} for node in self.nodes},
            "services": {"qwen": service},
        }
        self.shell.write("inventory.yml", json.dumps(inventory))

    def apply(self, *words: str, status: int = 0) -> dict[str, Any]:
        roles = [word for role in ("image", "service", "health") for word in ("--role", role)]
        return self.shell.json("apply", "inventory.yml", *roles, "--yes", *words, status=status)

    def shown(self, name: str) -> list[str]:
        return [node.text("systemctl", "show", "-P", name, UNIT).strip() for node in self.nodes]

    def group(self, node: Node) -> dict[str, Any]:
        found = node.exec("cat", "/run/sparkops/groups/qwen.json", check=False).stdout
        return dict(json.loads(found or b"{}"))

    def epochs(self) -> set[str]:
        return {str(self.group(node).get("epoch", "")) for node in self.nodes}

    def containers(self) -> list[str]:
        """The engine's container on each node; "" for none."""
        ask = ("docker", "ps", "-q", "--no-trunc", "--filter", "label=sparkops.service=qwen")
        return [node.text(*ask) for node in self.nodes]

    def journal(self, node: Node) -> str:
        return node.text("journalctl", "-q", "-u", UNIT, "-o", "cat")

    def serves(self) -> bool:
        """All ranks say so in one run, and the head really answers."""
        if self.shown("ActiveState") != ["active"] * len(self.nodes) or len(self.epochs() - {""}) != 1:
            return False
        ask = ("curl", "-sS", "-m", "3", "-H", "Content-Type: application/json", "http://127.0.0.1:8000/v1/completions")
        return b'"text"' in self.nodes[0].exec(*ask, "-d", '{"prompt": "x", "max_tokens": 2}', check=False).stdout

    @contextmanager
    def starts_again(self, within: float) -> Iterator[None]:
        """All ranks run another run of other containers, `within` seconds after what is done here."""
        epoch, before = self.epochs(), self.containers()
        yield
        began = time.monotonic()
        try:
            until(lambda: self.serves() and not self.epochs() & epoch, seconds=within)
        except AssertionError:
            print(*(f"--- {node.name}\n{self.journal(node)}" for node in self.nodes), sep="\n")
            raise
        print(f"all ranks serve again after {time.monotonic() - began:.1f} s")
        assert not {*self.containers()} & {*before}, "each container is another one"


@pytest.fixture
def cluster(lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]) -> Iterator[Cluster]:
    yield Cluster(lab, shell, nodes(3))


def last_end(cluster: Cluster, node: Node) -> str:
    """What a node's launcher said of the last run's end."""
    return [line for line in cluster.journal(node).splitlines() if line.startswith("sparkops: group: ending")][-1]


def test_ranks_wait_for_each_other_and_a_second_apply_changes_nothing(cluster: Cluster) -> None:
    head, *others = cluster.nodes
    cluster.declare()
    cluster.apply()

    until(cluster.serves)
    argv = json.loads(head.text("curl", "-sS", "http://127.0.0.1:8000/lab/argv"))
    words = " ".join(argv["argv"])
    assert f"--master-addr {cluster.fabric(head)} --nnodes 3 --node-rank 0" in words and "--headless" not in words
    assert argv["environment"]["VLLM_HOST_IP"] == cluster.fabric(head)
    assert "rank 1 of an engine" in cluster.shown("StatusText")[1]
    started = cluster.shown("ExecMainStartTimestampMonotonic")
    assert cluster.apply()["steps"] == [], "a second apply changes nothing, the key of the group neither"
    told = cluster.shell.json("status")
    assert [rank["unit"] for rank in told["services"][0]["ranks"]] == [UNIT] * 3
    assert told["services"][0]["serving"]
    assert cluster.shown("ExecMainStartTimestampMonotonic") == started
    keys = {node.read("/etc/sparkops/services/qwen.group") for node in cluster.nodes}
    assert len(keys) == 1 and len(keys.pop()) == 64
    assert cluster.group(head)["restarts"] == []

    # The order of a boot is any: the head waits for the last rank without an end, and no start is counted.
    for node in cluster.nodes:
        node.exec("systemctl", "stop", UNIT)
    for node in reversed(cluster.nodes[:2]):
        node.exec("systemctl", "start", "--no-block", UNIT)
    until(lambda: "is not there" in cluster.shown("StatusText")[0])
    assert cluster.shown("ActiveState") == ["activating", "activating", "inactive"]
    assert cluster.containers() == ["", "", ""]
    others[1].exec("systemctl", "start", "--no-block", UNIT)
    until(cluster.serves)
    assert cluster.shown("NRestarts") == ["0", "0", "0"]


def test_what_is_lost_ends_and_starts_all_ranks_together(cluster: Cluster) -> None:
    head, second, third = cluster.nodes
    cluster.declare()
    cluster.apply()
    until(cluster.serves)

    with cluster.starts_again(START):
        second.exec("docker", "kill", cluster.containers()[1])
    assert "the container ended with 137" in last_end(cluster, head)

    with cluster.starts_again(HEARTBEAT + START):
        third.exec("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    assert "its launcher was started anew" in last_end(cluster, head)

    with cluster.starts_again(HEARTBEAT + START):
        head.exec("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    assert "its launcher was started anew" in last_end(cluster, second)
    assert [cause for _, cause in cluster.group(head)["restarts"]] == ["engine", "anew"]

    with cluster.starts_again(HEARTBEAT + START):
        second.exec("systemctl", "restart", "--no-block", UNIT)
        until(lambda: not cluster.serves())
    assert "it was asked to stop" in last_end(cluster, head)
    assert len(cluster.group(head)["restarts"]) == 2, "what was asked for takes nothing of the budget"

    with cluster.starts_again(HEARTBEAT + START):
        third.kill()
        until(lambda: "is lost: silent over fabric and management" in last_end(cluster, head))
        third.start()
    assert "is lost" in last_end(cluster, second) or "lost" in last_end(cluster, second)


def test_a_fabric_that_is_cut_is_told_and_heals(cluster: Cluster) -> None:
    head, second, _ = cluster.nodes
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    epochs = cluster.epochs()
    second.unplug(cluster.lab.fabric())
    began = time.monotonic()
    until(lambda: cluster.containers() == ["", "", ""])
    assert time.monotonic() - began < HEARTBEAT + START
    assert f"the fabric to rank 1 ({second.name}) is cut" in last_end(cluster, head)
    until(lambda: "not over fabric" in cluster.shown("StatusText")[0])
    assert set(cluster.shown("ActiveState")) == {"reloading"}, "none says that it serves"
    told = cluster.shell.run("status", status=2).stdout
    assert "not over fabric" in told
    report = cluster.shell.json("drift", "inventory.yml", status=None)
    assert "group-not-running" in {each["id"] for each in report["notices"]}
    second.plug(cluster.lab.fabric(), cluster.fabric(second))
    until(lambda: cluster.serves() and not cluster.epochs() & epochs, seconds=HEARTBEAT + START)
    assert cluster.shown("NRestarts") == ["0", "0", "0"]


def test_a_rank_that_stands_still_for_good_is_a_hang_with_stacks_of_all_ranks(cluster: Cluster) -> None:
    head, second, _ = cluster.nodes
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    with cluster.starts_again(90):
        second.exec("docker", "kill", "-s", "STOP", cluster.containers()[1])
        second.exec("sh", "-c", "for p in $(docker top $(docker ps -q) -o pid | tail -n +2); do kill -STOP $p; done")
    end = last_end(cluster, head)
    assert "questions without an answer" in end and f"rank 1 ({second.name}) still for" in end
    assert [cause for _, cause in cluster.group(head)["restarts"]] == ["hang"]
    for node in cluster.nodes:
        kept = node.read("/var/lib/sparkops/services/qwen/last-hang.txt").decode()
        assert "questions without an answer" in kept and "thread" in kept


def test_ranks_survive_a_boot_of_a_node(cluster: Cluster) -> None:
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    fabric = cluster.lab.fabric()
    with cluster.starts_again(60):
        cluster.nodes[0].restart()
    assert cluster.group(cluster.nodes[0])["restarts"] == []
    assert fabric
