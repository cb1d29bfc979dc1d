"""One engine over real nodes: ranks that need each other, which start together, end together and start again."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import images
from tests.lab.lab import Lab
from tests.lab.machine import LabError, run
from tests.lab.node import FABRIC_SUBNET, Node

UNIT = "qwen.service"
LAUNCHER = "/usr/local/lib/sparkops/launcher.py"
HEARTBEAT = 12.0
"""Seconds of silence after which a rank of these tests is lost."""
START = 90.0
"""Seconds within which all ranks run again after that: 5 of a machine that does nothing else."""
TOGETHER = 15.0
"""Seconds within which all ranks run again once a lost one is missed."""
WATCHDOG = 12.0
"""Seconds without a sign of life after which the engine is ended, where it is to hang or a machine to stand still."""
COOLDOWN = 80
"""Seconds between two restarts after hangs."""


def inventory(
    image: str,
    nodes: Sequence[Node],
    mode: str = "ranks",
    *,
    start: float = 180,
    watchdog: float = 60,
    per_node: Any = None,
    **group: Any,
) -> dict[str, Any]:
    """The service `qwen`, one engine over all nodes. `start` and `watchdog` are limits in seconds."""
    timeouts = {
        "first_boot_seconds": start,
        "cold_start_seconds": start,
        "memory_seconds": 5,
        "stop_seconds": 5,
        "probe_seconds": 4,
        "watchdog_seconds": watchdog,
        "restart_seconds": 1,
    }
    service = {
        "nodes": [node.name for node in nodes],
        "per_node": per_node or {},
        "image": {"pull": image},
        "health": {"limit_seconds": 15},
        "model": "/srv/tiny",
        "command": ["serve"],
        "serve": {"tensor-parallel-size": len(nodes)},
        "environment": {"LAB_ENGINE": mode},
        "gpus": None,
        "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
        "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
        "group": {"heartbeat_seconds": HEARTBEAT, "minimum_uptime_seconds": 5, **group},
        "timeouts": timeouts,
    }
    return {
        "version": 1,
        "cluster": "tests",
        "connection": {"user": "root"},
        "nodes": {node.name: {"fabric": {"address": node.fabric_address}} for node in nodes},
        "services": {"qwen": service},
    }


class Cluster:
    """The service `qwen`, one engine over all nodes; each step of it needs all ranks, over the fabric."""

    def __init__(self, lab: Lab, shell: Shell, nodes: list[Node]) -> None:
        self.lab, self.shell, self.nodes = lab, shell, nodes
        image = images.engine(lab.registry, lab.cache, tag="ranks")
        self.image, self.pinned = image.reference, image.pinned
        header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
        for node in nodes:
            node.exec("mkdir", "-p", "/srv/tiny")
            node.write("/srv/tiny/config.json", b"{}")
            node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
            node.plug(lab.fabric())

    def declare(self, mode: str = "ranks", **more: Any) -> None:
        self.shell.write("inventory.yml", json.dumps(inventory(self.image, self.nodes, mode, **more)))

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
        return [node.text(*ask) if node.pid else "" for node in self.nodes]

    def phases(self) -> list[str]:
        """What each rank says in `sparkops status` while none serves."""
        (service,) = self.shell.json("status", status=2)["services"]
        return [str(rank["phase"]) for rank in service["ranks"]]

    def journal(self, node: Node) -> str:
        return node.text("journalctl", "-q", "-u", UNIT, "-o", "cat")

    def serves(self) -> bool:
        """All ranks say so in one run, and the head really answers."""
        if self.shown("ActiveState") != ["active"] * len(self.nodes) or len(self.epochs() - {""}) != 1:
            return False
        ask = ("curl", "-sS", "-m", "3", "-H", "Content-Type: application/json", "http://127.0.0.1:8000/v1/completions")
        body = json.dumps({"model": "/srv/tiny", "prompt": "The capital of France is", "max_tokens": 2})
        return b'"text"' in self.nodes[0].exec(*ask, "-d", body, check=False).stdout

    def stand_still(self, node: Node, signal: str = "STOP") -> None:
        """A signal to each process of the engine, which its first one would not pass on."""
        node.exec("sh", "-c", f"kill -{signal} $(docker top $(docker ps -q) -o pid | tail -n +2)")

    @contextmanager
    def starts_again(self, what: str, *, within: float, since: str = "") -> Iterator[None]:
        """All ranks run another run of other containers, `within` seconds after what is done here."""
        epoch, before = self.epochs(), self.containers()
        try:
            yield
            began = time.monotonic()
            until(lambda: self.serves() and not self.epochs() & epoch, seconds=within)
        except (AssertionError, LabError):
            print(*(f"--- {node.name}\n{self.journal(node)}" for node in self.nodes), sep="\n")
            raise
        print(
            f"{what}: all ranks serve again after {time.monotonic() - began:.1f} s{since and f' since it was {since}'}"
        )
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
    assert f"--master-addr {head.fabric_address} --nnodes 3 --node-rank 0" in words and "--headless" not in words
    assert argv["environment"]["VLLM_HOST_IP"] == head.fabric_address
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

    # What the nodes run is known by its content: another name of it is written, and restarts nothing.
    cluster.image = cluster.pinned
    assert not [step["id"] for step in cluster.apply()["steps"] if step["disruptive"]]
    assert cluster.apply()["steps"] == []
    assert cluster.shown("ExecMainStartTimestampMonotonic") == started

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

    with cluster.starts_again("an engine killed", within=HEARTBEAT + TOGETHER):
        second.exec("docker", "kill", cluster.containers()[1])
    assert "the container ended with 137" in last_end(cluster, head)
    assert "the container ended with 137" in last_end(cluster, third)

    with cluster.starts_again("a launcher killed", within=HEARTBEAT + TOGETHER):
        third.exec("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    assert "its launcher was started anew" in last_end(cluster, head)

    with cluster.starts_again("the head's launcher killed", within=HEARTBEAT + TOGETHER):
        head.exec("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    assert "its launcher was started anew" in last_end(cluster, second)
    assert [cause for _, cause in cluster.group(head)["restarts"]] == ["engine", "anew"]

    with cluster.starts_again("the head restarted", within=HEARTBEAT + START):
        head.exec("systemctl", "restart", "--no-block", UNIT)
    assert cluster.group(head)["restarts"] == [], "who starts the head by hand begins anew"

    with cluster.starts_again("a node lost and back", within=HEARTBEAT + START, since="back"):
        third.kill()
        began = time.monotonic()
        until(lambda: cluster.containers()[:2] == ["", ""])
        print(f"all other ranks ended {time.monotonic() - began:.1f} s after the node was lost")
        assert "is lost: silent over fabric and management" in last_end(cluster, head)
        third.start()
    assert "is lost: silent over fabric and management" in last_end(cluster, second)
    assert [cause for _, cause in cluster.group(head)["restarts"]] == ["lost"]

    with cluster.starts_again("launchers of another version, and one of them started", within=HEARTBEAT + START):
        for node in cluster.nodes:
            other = node.read(LAUNCHER).replace(b'PROTOCOL = b"1"', b'PROTOCOL = b"2"')
            node.write(LAUNCHER + ".new", other)
            node.exec("mv", LAUNCHER + ".new", LAUNCHER)
        second.exec("systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT)
    assert "there is another launcher now; it takes over" in cluster.journal(head)
    assert cluster.shown("NRestarts")[0] == cluster.shown("NRestarts")[2] == "0"


def test_a_rank_that_somebody_stopped_is_waited_for_and_costs_nothing(cluster: Cluster) -> None:
    head, second, third = cluster.nodes
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    with cluster.starts_again("a rank stopped by hand and started", within=START, since="started"):
        second.exec("systemctl", "stop", UNIT)
        until(lambda: cluster.containers() == ["", "", ""])
        waits = f"rank 1 ({second.name}) has left: it was asked to stop"
        until(lambda: waits in cluster.shown("StatusText")[2])
        until(lambda: cluster.shown("ActiveState") == ["reloading", "inactive", "reloading"])
        assert "it was asked to stop" in last_end(cluster, head) and "asked to stop" in last_end(cluster, third)
        second.exec("systemctl", "start", "--no-block", UNIT)
    assert cluster.group(head)["restarts"] == []


def test_a_fabric_that_is_cut_is_told_and_heals(cluster: Cluster) -> None:
    head, second, _ = cluster.nodes
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    with cluster.starts_again("a fabric cut and healed", within=HEARTBEAT + START, since="healed"):
        second.unplug(cluster.lab.fabric())
        began = time.monotonic()
        until(lambda: cluster.containers() == ["", "", ""])
        print(f"all ranks ended {time.monotonic() - began:.1f} s after the fabric was cut")
        assert time.monotonic() - began < HEARTBEAT + START
        assert f"the fabric to rank 1 ({second.name}) is cut" in last_end(cluster, head)
        until(lambda: "not over fabric" in cluster.shown("StatusText")[0])
        until(lambda: {*cluster.shown("ActiveState")} == {"reloading"})  # none says that it serves
        assert "not over fabric" in cluster.phases()[0]
        report = cluster.shell.json("drift", "inventory.yml", status=None)
        notices = [each["message"] for each in report["notices"] if each["id"] == "group-not-running"]
        assert any("not over fabric" in each for each in notices), report["notices"]
        second.plug(cluster.lab.fabric())
    assert [cause for _, cause in cluster.group(head)["restarts"]] == ["cut"]
    assert cluster.shown("NRestarts") == ["0", "0", "0"]


@pytest.mark.slow
def test_a_rank_that_stands_still_for_a_minute_ends_nothing(cluster: Cluster) -> None:
    cluster.declare(watchdog=120)
    cluster.apply()
    until(cluster.serves)
    epochs, containers = cluster.epochs(), cluster.containers()
    cluster.stand_still(cluster.nodes[1])
    began = time.monotonic()
    assert not cluster.serves(), "each step needs all ranks"
    while time.monotonic() - began < 60:
        assert cluster.epochs() == epochs and cluster.containers() == containers
    cluster.stand_still(cluster.nodes[1], "CONT")
    until(cluster.serves)
    assert cluster.epochs() == epochs and cluster.containers() == containers


def test_a_rank_that_stands_still_for_good_is_a_hang_with_stacks_of_all_ranks(cluster: Cluster) -> None:
    head, second, third = cluster.nodes
    cluster.declare(start=60, watchdog=WATCHDOG, hang_cooldown_seconds=COOLDOWN, restarts_per_boot=2)
    cluster.apply()
    until(cluster.serves)
    with cluster.starts_again("a hang", within=60 + START):
        cluster.stand_still(second)
    end = last_end(cluster, head)
    assert "questions without an answer" in end
    assert re.search(rf"rank 1 \({second.name}\) still for \d+ s, processes .*T", end), end
    ((first, cause),) = cluster.group(head)["restarts"]
    assert cause == "hang"
    for node in cluster.nodes:
        kept = node.read("/var/lib/sparkops/services/qwen/last-hang.txt").decode()
        assert end.removeprefix("sparkops: group: ending: ") in kept, "for one reason"
        assert "waits in" in kept and "hread 0x" in kept and "Loading weights took" in kept, kept

    with cluster.starts_again("a second hang", within=60 + START + COOLDOWN):
        cluster.stand_still(third)
        until(lambda: f"it hung again within {COOLDOWN} s" in cluster.shown("StatusText")[0], seconds=60 + START)
        until(lambda: cluster.containers() == ["", "", ""])
    assert time.monotonic() - first > COOLDOWN

    third.exec("docker", "kill", cluster.containers()[2])
    until(lambda: cluster.shown("ActiveState")[0] == "failed")
    told = "2 restarts since this node was booted are enough (ends: hang, hang, engine)"
    assert told in cluster.journal(head)
    until(lambda: "rank 0" in cluster.shown("StatusText")[1] and "has left" in cluster.shown("StatusText")[1])
    assert f"rank 0 ({head.name}) has left: 2 restarts" in cluster.phases()[1]
    with cluster.starts_again("the head started by hand", within=START):
        head.exec("systemctl", "start", "--no-block", UNIT)
    assert cluster.group(head)["restarts"] == []


def test_ranks_survive_boots_of_one_node_of_the_head_and_of_all(cluster: Cluster) -> None:
    cluster.declare()
    cluster.apply()
    until(cluster.serves)
    for what, rebooted in {
        "a node rebooted": cluster.nodes[1:2],
        "the head rebooted": cluster.nodes[:1],
        "all nodes rebooted": cluster.nodes,
    }.items():
        with cluster.starts_again(what, within=2 * START, since="up"):
            together = [threading.Thread(target=node.restart) for node in rebooted]
            for each in together:
                each.start()
            for each in together:
                each.join()
    assert cluster.group(cluster.nodes[0])["restarts"] == []


@pytest.mark.slow
def test_machines_that_stood_still_longer_than_the_watchdog_serve_again(cluster: Cluster) -> None:
    """systemd ends a launcher for it (or not: its word may come first), which goes then, in place of one engine after
    the other."""
    head, second, _ = cluster.nodes
    cluster.declare(watchdog=WATCHDOG, restarts_per_boot=3)
    cluster.apply()
    until(cluster.serves)
    for number, node in enumerate((head, second), 1):
        with cluster.starts_again(f"{node.name} stood still", within=2 * START, since="moving"), node.paused():
            time.sleep(WATCHDOG + 8)
        assert len(cluster.group(head)["restarts"]) <= number
    restarts = [int(each) for each in cluster.shown("NRestarts")]
    assert max(restarts) <= 1 and restarts[2] == 0

    with cluster.starts_again("a launcher that systemd's watchdog ended", within=2 * START):
        second.exec("systemctl", "kill", "--kill-whom=main", "-s", "ABRT", UNIT)
    assert "the machine, or this launcher, stood still" in cluster.journal(second)
    assert int(cluster.shown("NRestarts")[1]) == restarts[1] + 1


@pytest.mark.slow
def test_a_slow_rank_and_a_fabric_that_loses_packets_end_nothing(cluster: Cluster) -> None:
    head, second, _ = cluster.nodes
    cluster.declare(per_node={second.name: {"environment": {"LAB_ENGINE": "ranks,slow=20"}}})
    cluster.apply()
    until(cluster.serves)
    assert "loads" not in cluster.shown("StatusText")[1]
    assert cluster.group(head)["restarts"] == [] and cluster.shown("NRestarts") == ["0", "0", "0"]
    epochs, containers = cluster.epochs(), cluster.containers()
    lossy = [
        "-d",
        f"{FABRIC_SUBNET}.0/24",
        "-m",
        "statistic",
        "--mode",
        "random",
        "--probability",
        "0.01",
        "-j",
        "DROP",
    ]
    for node in cluster.nodes:
        run(["nsenter", "-t", str(node.pid), "-n", "iptables", "-I", "OUTPUT", *lossy], root=True)
    began, answers = time.monotonic(), 0
    while time.monotonic() - began < 60:
        answers += cluster.serves()
        assert cluster.epochs() == epochs and cluster.containers() == containers
    print(f"{answers} answers within a minute in which the fabric lost 1 % of all packets")
    assert answers > 5


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
PORT = "/sys/class/infiniband/rocep1s0f0/ports/1"


def moved(shell: Shell) -> set[tuple[str, str]]:
    found = shell.json("drift", "--role", "uniform", status=None)["findings"]
    return {(each["id"], each["node"]) for each in found if each["resource"].startswith("rank qwen")}


def test_what_moves_on_the_links_below_a_running_engine_is_drift(cluster: Cluster) -> None:
    head, other, _ = cluster.nodes
    for node in cluster.nodes:
        node.exec("sh", "-ec", RDMA)
    cluster.declare()
    cluster.apply()
    for node in cluster.nodes:
        until(lambda node=node: node.exists("/var/lib/sparkops/services/qwen/rdma-at-start.json"))
    assert moved(cluster.shell) == set(), "as it was when the engine started"

    head.exec("sh", "-ec", f"echo 22 > {PORT}/hw_counters/out_of_sequence")
    other.exec("sh", "-ec", f"echo 0 > {PORT}/hw_counters/out_of_sequence; mv {PORT}/gids/0 {PORT}/gids/1")
    other.exec("sh", "-ec", f"echo 0 > {PORT}/gids/0; mv {PORT}/gid_attrs/types/0 {PORT}/gid_attrs/types/1")
    assert moved(cluster.shell) == {("rank-packets-lost", head.name), ("rank-gid-moved", other.name)}
