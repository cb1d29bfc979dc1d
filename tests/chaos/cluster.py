"""The small real inventory that the faults meet, in several generations, and how a node is brought into a state to
start from.

A generation differs from the next in every file, in the unit's text and inputs, in one shard of the checkpoint, in the
pulled image and in the built one. What each of them must hold is known here to the byte.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.registry import Layer

GENERATIONS = 3
ROOT = "/chaos"
SETTINGS = f"{ROOT}/settings"
PLAIN = f"{SETTINGS}/engine.conf"
CHECKED = f"{SETTINGS}/checked.conf"
MODEL = f"{ROOT}/model"
UNIT = "chaos.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
BUILT = "local/chaos:built"
REPOSITORY = "org/chaos"
IMAGE = "tests/chaos"
ROLES = ("settings", "weights", "picture")
SERVICE_ROLES = ("image", "service", "health")
ENGINE = "engine"
PORT = 8000
TINY = "/srv/tiny"
PARTS = ("settings", "unit", "model", "images")
RATE = 300_000
"""Bytes a second of a shard, so that fetching it takes about as long as the rest."""
HELPERS = (".model.sparkops-partial", ".model.sparkops-old")
"""What may stand beside a checkpoint until an apply has finished it."""
AGENT = Path(__file__).with_name("on_node.py").read_text()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def text(generation: int, name: str) -> str:
    """A file's content: long enough that a part of it would be seen."""
    return "".join(f"{name} line {number} of generation {generation}\n" for number in range(1500))


def unit(generation: int) -> str:
    return (
        f"[Unit]\nDescription=chaos, generation {generation}\n[Service]\nEnvironment=SPARKOPS_INPUTS=g{generation}\n"
        "ExecStart=/usr/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    )


@dataclass(frozen=True)
class Seen:
    """What stands on a node; digests by path, None for what is not there."""

    files: Mapping[str, str | None]
    trees: Mapping[str, Mapping[str, str] | None]
    strange: tuple[str, ...]
    locked: bool
    jobs: int


def act(node: Node, verb: str, **order: Any) -> Any:
    """One of the verbs of on_node.py on a node."""
    return json.loads(node.exec("python3", "-I", "-c", AGENT, verb, json.dumps(order)).stdout)


@dataclass
class Cluster:
    """The inventory in `shell`'s folder, for these nodes; `hub` and the lab's registry serve what it declares.

    serving: it declares the service ENGINE, too.
    """

    lab: Lab
    shell: Shell
    hub: Hub
    nodes: list[Node]
    serving: bool = False
    references: list[str] = field(default_factory=list)
    trees: list[dict[str, str]] = field(default_factory=list)

    def publish(self) -> None:
        """Put every generation's checkpoint and image where the nodes get them."""
        for generation in range(GENERATIONS):
            folder = self.shell.folder.parent / f"model-{generation}"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({"generation": generation}))
            (folder / "model-1.safetensors").write_bytes(random.Random(generation).randbytes(RATE))
            (folder / "model-2.safetensors").write_bytes(random.Random("shared").randbytes(RATE // 2))
            self.hub.add_repo(REPOSITORY, folder, branch=f"g{generation}")
            self.trees.append({path.name: sha256(path.read_bytes()) for path in folder.iterdir()})
            self._push(generation)
        for node in self.nodes if self.serving else ():
            node.exec("docker", "pull", "-q", self.lab.engine_image.reference, timeout=300)
            node.exec("mkdir", "-p", TINY)
            node.write(f"{TINY}/config.json", b"{}")
            header = b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
            node.write(f"{TINY}/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
        self.heal()

    def heal(self) -> None:
        """The hub without faults, but slow as ever."""
        self.hub.heal()
        self.hub.fail("model-*", Fault(rate=RATE))

    def _push(self, generation: int) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            entry = tarfile.TarInfo("content")
            entry.size = 2 << 20
            tar.addfile(entry, io.BytesIO(random.Random(generation).randbytes(entry.size)))
        path = self.shell.folder.parent / f"layer-{generation}.tar.gz"
        path.write_bytes(gzip.compress(out.getvalue(), compresslevel=1, mtime=0))
        pushed = self.lab.registry.push(IMAGE, f"g{generation}", [Layer.of(path)], command=["/content"])
        self.references.append(f"{self.lab.registry.host}/{IMAGE}@{pushed.digest}")

    def declare(self, generation: int) -> None:
        """Write the inventory and its roles."""
        roles: dict[str, list[dict[str, Any]]] = {
            "settings": [
                {"directory": SETTINGS, "parents": True},
                {"file": PLAIN, "content": text(generation, "engine")},
                {"file": CHECKED, "content": text(generation, "checked"), "mode": "0644"}
                | {"validate": ["/usr/bin/sleep", "0.4"]},
                {"unit": UNIT, "content": unit(generation), "inputs": f"g{generation}", "enabled": True}
                | {"running": True},
            ],
            "weights": [
                {"checkpoint": MODEL, "repository": REPOSITORY, "revision": f"g{generation}", "adopt": []}
                | {"endpoint": self.hub.endpoint, "segment": 100_000, "stall": 3, "connections": 2},
            ],
            "picture": [
                {"image": self.references[generation]},
                {"image": BUILT, "content": f"FROM {self.references[generation]}\nCOPY note /note\n"}
                | {"files": {"/note": text(generation, "note")}},
            ],
        }
        for name, resources in roles.items():
            role = {"summary": f"chaos: {name}", "scope": "node", "resources": resources}
            self.shell.write(f"roles/{name}/role.yml", json.dumps(role))
        inventory = {
            "version": 1,
            "cluster": "chaos",
            "connection": {"user": "spark", "become": True, "connect_timeout": 6, "keepalive": 2},
            "roles": list(ROLES),
            "nodes": {node.name: {"host": node.name} for node in self.nodes},
        }
        if self.serving:
            inventory["services"] = {ENGINE: self._service(generation)}
        self.shell.write("inventory.yml", json.dumps(inventory))

    def _service(self, generation: int) -> dict[str, Any]:
        return {
            "nodes": [node.name for node in self.nodes],
            "port": PORT,
            "image": {"pull": self.lab.engine_image.reference},
            "model": TINY,
            "command": ["serve"],
            "gpus": None,
            "container": {"mounts": [{"source": TINY, "target": TINY}]},
            "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
            "environment": {"GREETING": f"generation {generation}"},
            "timeouts": {
                "first_boot_seconds": 180,
                "cold_start_seconds": 180,
                "probe_seconds": 20,
                "stop_seconds": 5,
                "watchdog_seconds": 60,
                "restart_seconds": 1,
            },
            "health": {"limit_seconds": 15},
        }

    def serves(self, node: Node, generation: int) -> bool:
        """Whether the declared engine, and no other, answers on the port, out of the one container of the service."""
        told = node.exec("curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{PORT}/lab/argv", check=False)
        containers = node.exec("docker", "ps", "-q", "--filter", f"label=sparkops.service={ENGINE}", check=False)
        answered = f"generation {generation}" in told.stdout.decode()
        return answered and len(containers.stdout.split()) == 1

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments that every command gets."""
        roles = (*ROLES, *(SERVICE_ROLES if self.serving else ()))
        return ("inventory.yml", *(word for role in roles for word in ("--role", role)), "--format", "json")

    def wanted(self, generation: int) -> dict[str, str]:
        """The digests of the declared files."""
        return {
            PLAIN: sha256(text(generation, "engine").encode()),
            CHECKED: sha256(text(generation, "checked").encode()),
            UNIT_FILE: sha256(unit(generation).encode()),
        }

    def look(self, node: Node) -> Seen:
        """What stands on a node now."""
        folders = {
            SETTINGS: [Path(PLAIN).name, Path(CHECKED).name],
            ROOT: ["settings", "model"],
            "/etc/systemd/system": None,
        }
        found = act(node, "look", files=[PLAIN, CHECKED, UNIT_FILE], trees=[MODEL], folders=folders)
        return Seen(**{**found, "strange": tuple(found["strange"])})

    def take_away(self, node: Node, parts: tuple[str, ...]) -> None:
        """Remove these PARTS from a node, and what sparkops keeps there when all of them go."""
        paths = {"settings": [SETTINGS], "unit": [UNIT_FILE], "model": [MODEL], "images": []}
        bare = ["/var/lib/sparkops/claims", "/var/lib/sparkops/verified", ROOT] if set(parts) == set(PARTS) else []
        act(
            node,
            "take_away",
            units=[UNIT] if "unit" in parts else [],
            paths=[path for part in parts for path in paths[part]] + bare,
            images=[BUILT, *self.references] if "images" in parts else [],
        )

    def vandalise(self, node: Node, choice: random.Random) -> str:
        """Change something by hand; says what."""
        ways = {
            "a file edited": f"echo edited > {PLAIN}",
            "a file of another mode": f"chmod 600 {CHECKED}",
            "a unit stopped": f"systemctl stop {UNIT}",
            "a unit's text edited": f"sed -i s/generation/GENERATION/ {UNIT_FILE}",
            "a shard rotten": f"printf rot | dd of={MODEL}/model-1.safetensors bs=1 seek=777 conv=notrunc status=none",
            "a shard removed": f"rm -f {MODEL}/model-2.safetensors",
            "an image's name taken away": f"docker rmi -f {BUILT}",
        }
        chosen = choice.sample(sorted(ways), 2)
        for way in chosen:
            node.exec("sh", "-c", f"{ways[way]} || true")
        return " and ".join(chosen)
