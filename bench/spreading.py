"""A checkpoint from node to node against `rsync` over ssh and a bare TLS copy, and a chain of four nodes.

Everything stands in memory (tmpfs): the disk of a shared machine would be all that is measured. Ours is the whole act:
the jobs of relay and receiver started, TLS with certificates of both sides, sha256 of every byte, published, proven.
"""

from __future__ import annotations

import datetime
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparkops.checkpoints.authority import Authority
from sparkops.nodes.bundle import kinds_bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.reconcile import plan, transfers
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import observe
from sparkops.reconcile.planning import Planned
from sparkops.reconcile.schedule import Schedule
from sparkops.reconcile.targets import Address
from sparkops.resources.checkpoint import Checkpoint
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

REPO = "org/bench"
SHARDS, SHARD = 36, 50 << 20
ROUNDS = 3
CHAIN_RATE = "320mbit"
"""The rate of each link of the chain: 40 MB/s, far below what the cores can do."""
MEMORY = "/data"
FOLDER = f"{MEMORY}/models/bench"
ACCOUNTS = Path("/sys/fs/cgroup/cpuacct/docker")

_SENDER = """
import os, socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain("/data/bare.pem")
listener = socket.create_server((sys.argv[1], 4433))
print("listening", flush=True)
tls = context.wrap_socket(listener.accept()[0], server_side=True)
for name in sorted(os.listdir(sys.argv[2])):
    if name.endswith(".safetensors"):
        with open(os.path.join(sys.argv[2], name), "rb", buffering=0) as file:
            while data := file.read(1 << 20):
                tls.sendall(data)
tls.close()
"""
_RECEIVER = """
import os, socket, ssl, sys, time
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for _ in range(100):
    try:
        plain = socket.create_connection((sys.argv[1], 4433))
        break
    except OSError:
        time.sleep(0.02)
tls = context.wrap_socket(plain)
buffer = memoryview(bytearray(1 << 20))
with open(sys.argv[2], "wb", buffering=0) as file:
    while count := tls.recv_into(buffer):
        file.write(buffer[:count])
"""


class Ground:
    """Nodes with a checkpoint in memory on the first, and one session to each."""

    def __init__(self, lab: Lab, nodes: Sequence[Node], hub: Hub, fleet: Fleet) -> None:
        self.lab, self.nodes, self.hub, self.fleet = lab, nodes, hub, fleet
        self.each = [self._declared(node) for node in nodes]

    def _declared(self, node: Node) -> Checkpoint:
        return Checkpoint(
            node=node.name,
            name=FOLDER,
            repository=REPO,
            endpoint=self.hub.endpoint,
            adopt=(f"{MEMORY}/seed",),
            state_dir=f"{MEMORY}/state",
        ).prepare()

    def bring(self, wanted: Sequence[Checkpoint]) -> None:
        """Apply these as a run does it."""
        seen = observe(self.fleet, wanted)
        made = plan.compare(wanted, seen, today=datetime.date(2026, 1, 1))
        by_name = {node.name: Address(fabric=node.address) for node in self.nodes}
        upstreams, _ = transfers.arrange(made, wanted, seen, by_name.__getitem__)
        planned = Planned(plan=made, resources=tuple(wanted), facts=seen.facts, upstreams=upstreams)
        results = Schedule(planned, self.fleet, stop=threading.Event()).run()
        wrong = [each for each in results if each.outcome != "done"]
        if wrong:
            raise RuntimeError(str(wrong))

    def clear(self, node: Node) -> None:
        node.exec("sh", "-c", f"rm -rf {MEMORY}/models {MEMORY}/copy {MEMORY}/state")


def measure() -> dict[str, Any]:
    """Seconds, CPU seconds per GB of both nodes together, and memory at the most; then the chain's ratio."""
    load = round(os.getloadavg()[0], 1)
    with _ground(4) as ground:
        figures = _copies(ground)
        chain = _chain(ground)
    seconds = {name: each["seconds"]["median"] for name, each in figures.items()}
    cpu = {name: each["cpu_per_gb"] for name, each in figures.items()}
    return {
        "load_before": load,
        "gb": round(SHARDS * SHARD / 1e9, 2),
        "copies": figures,
        "faster_than_rsync": round(seconds["rsync"] / seconds["sparkops"], 2),
        "cpu_to_rsync": round(cpu["sparkops"] / cpu["rsync"], 2),
        "of_bare_tls": round(seconds["bare TLS"] / seconds["sparkops"], 2),
        "chain": chain,
    }


@contextmanager
def _ground(count: int) -> Iterator[Ground]:
    with Lab.session() as lab, tempfile.TemporaryDirectory() as name, Hub(lab.address) as hub:
        os.environ["XDG_CACHE_HOME"] = name
        nodes = [lab.add_node() for _ in range(count)]
        try:
            model = Path(name) / "model"
            model.mkdir()
            for number in range(SHARDS):
                (model / f"model-{number:02}.safetensors").write_bytes(os.urandom(SHARD))
            hub.add_repo(REPO, model)
            for node in nodes:
                node.tmpfs(MEMORY, "3500m")
            targets = {
                node.name: Target(name=node.name, user="root", ssh_config=lab.ssh_config, known_hosts=lab.known_hosts)
                for node in nodes
            }
            program = kinds_bundle(["checkpoint"])
            with Fleet(targets, cluster="bench", connections=Connections(Passwords()), program=program) as fleet:
                ground = Ground(lab, nodes, hub, fleet)
                ground.bring(ground.each[:1])
                yield ground
        finally:
            for node in nodes:
                lab.remove_node(node)


def _copies(ground: Ground) -> dict[str, Any]:
    """Each way of copying in turn, from the first node to the second."""
    one, two = ground.nodes[:2]
    two.write("/root/.ssh/id", ground.lab.key.read_bytes(), mode=0o600)
    ssh = "ssh -i /root/.ssh/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    issued = Authority().source("bare", one.address)
    one.write(f"{MEMORY}/bare.pem", (issued["key"] + issued["certificate"]).encode())
    one.write(f"{MEMORY}/sender.py", _SENDER.encode())
    two.write(f"{MEMORY}/receiver.py", _RECEIVER.encode())

    def bare() -> None:
        sending = threading.Thread(target=one.exec, args=("python3", f"{MEMORY}/sender.py", one.address, FOLDER))
        sending.start()
        two.exec("python3", f"{MEMORY}/receiver.py", one.address, f"{MEMORY}/copy")
        sending.join()

    def rsync() -> None:
        two.exec("rsync", "-a", "--whole-file", "-e", ssh, f"root@{one.address}:{FOLDER}/", f"{MEMORY}/copy/")

    ways: dict[str, Callable[[], None]] = {
        "sparkops": lambda: ground.bring(ground.each[:2]),
        "rsync": rsync,
        "bare TLS": bare,
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, work in ways.items():
            ground.clear(two)
            before, started = _cpu(one, two), time.perf_counter()
            work()
            taken[name].append((time.perf_counter() - started, _cpu(one, two) - before))
    amount = SHARDS * SHARD / 1e9
    return {
        name: {
            "seconds": {
                "median": round(statistics.median(s for s, _ in each), 2),
                "min": round(min(s for s, _ in each), 2),
                "max": round(max(s for s, _ in each), 2),
                "rounds": len(each),
            },
            "cpu_per_gb": round(statistics.median(c for _, c in each) / amount, 2),
            "mb_per_second": round(amount * 1000 / statistics.median(s for s, _ in each)),
        }
        for name, each in taken.items()
    }


def _cpu(*nodes: Node) -> float:
    """CPU seconds that all processes of these nodes have used."""
    total = 0.0
    for node in nodes:
        name = node.engine.text("inspect", "-f", "{{.Id}}", node.container).strip()
        total += int((ACCOUNTS / name / "cpuacct.usage").read_text()) / 1e9
    return total


def _chain(ground: Ground) -> dict[str, Any]:
    """One copy, and a chain from one node over two more to the fourth, each node's way out held to one rate."""
    for node in ground.nodes:
        shape = (
            "tc",
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            "tbf",
            "rate",
            CHAIN_RATE,
            "burst",
            "1m",
            "latency",
            "50ms",
        )
        node.exec(*shape)
    seconds: dict[str, float] = {}
    for name, count in (("one copy", 2), ("chain of four", 4)):
        for node in ground.nodes[1:]:
            ground.clear(node)
        started = time.perf_counter()
        ground.bring(ground.each[:count])
        seconds[name] = round(time.perf_counter() - started, 2)
    return {"rate": CHAIN_RATE, "seconds": seconds, "ratio": round(seconds["chain of four"] / seconds["one copy"], 2)}
