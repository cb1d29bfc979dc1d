"""`sparkops gc` on a node: what nothing needs goes with its bytes, and everything that somebody uses stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Shell, until
from tests.e2e.test_orphans import claims, role
from tests.lab import model
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

MODELS = "/var/lib/sparkops/models"


class Declared:
    """An inventory of checkpoints and images on one node, with no other roles."""

    def __init__(self, lab: Lab, shell: Shell, node: Node, hub: Hub) -> None:
        self.image, self.shell, self.node, self.hub = lab.engine_image.reference, shell, node, hub
        for name in ("host", "driver", "fabric"):
            role(shell, name)

    def write(self, *folders: str, image: bool = True) -> None:
        things: list[dict[str, Any]] = [
            {"checkpoint": folder, "repository": "org/tiny", "endpoint": self.hub.endpoint, "adopt": []}
            for folder in folders
        ]
        role(self.shell, "things", *things, *([{"image": self.image}] if image else []))
        inventory = {
            "version": 1,
            "cluster": "attic",
            "connection": {"user": "root"},
            "nodes": {self.node.name: {"roles": ["things"]}},
        }
        self.shell.write("inventory.yml", json.dumps(inventory, indent=1))

    def gc(self, *words: str, status: int | None) -> dict[str, dict[str, Any]]:
        found = self.shell.json("gc", "inventory.yml", *words, status=status)
        return {f"{item['kind']} {item['name']}": item for item in found["items"]}


def reason(item: dict[str, Any]) -> str:
    """The id of why it is kept, "" where it can go."""
    return item["kept"]["id"] if item["kept"] else ""


def test_what_nothing_needs_goes_and_what_is_used_stays(
    lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path
) -> None:
    hub.add_repo("org/tiny", model.write(tmp_path / "tiny"))
    declared = Declared(lab, shell, node, hub)
    kept, gone, used, named, mixed = (f"{MODELS}/org--tiny/{name}" for name in ("kept", "gone", "used", "unit", "mix"))
    declared.write(kept, gone, used, named, mixed)
    shell.run("apply", "inventory.yml")
    node.exec("docker", "create", "--name", "stopped", "-v", f"{used}:/model", declared.image, "serve", "/model")
    node.write("/etc/systemd/system/bare.service", f"[Service]\nExecStart=/usr/bin/vllm serve {named}\n".encode())
    node.write(f"{mixed}/notes.txt", b"mine")
    node.exec("mkdir", "-p", f"{MODELS}/org--dead/.main.sparkops-partial/.sparkops/content")
    node.write(f"{MODELS}/org--dead/.main.sparkops-partial/.sparkops/content/x.part", b"x" * 100_000)
    node.exec("docker", "tag", declared.image, "mine/own:1")
    build = f"printf 'FROM {declared.image}\nLABEL sparkops.build=sha256:superseded\n' | docker build -q -"
    nameless = node.text("sh", "-c", build)

    declared.write(kept, image=False)
    found = declared.gc("--foreign", status=2)
    assert {key: reason(item) for key, item in found.items()} == {
        f"checkpoint {kept}": "gc-declared",
        f"checkpoint {gone}": "",
        f"checkpoint {used}": "gc-used-by-container",
        f"checkpoint {named}": "gc-named-in",
        f"checkpoint {mixed}": "gc-foreign-files",
        f"leftover {MODELS}/org--dead/.main.sparkops-partial": "",
        f"image {declared.image}": "gc-used-by-container",
        f"image {nameless}": "",
    }
    size = int(node.text("du", "-sb", f"{gone}/model-00001-of-00004.safetensors").split()[0])
    assert found[f"checkpoint {gone}"]["bytes"] < size, "the other folders hold the same content, and keep it"
    assert found[f"leftover {MODELS}/org--dead/.main.sparkops-partial"]["bytes"] >= 100_000
    assert "nothing was changed" in shell.run("gc", "inventory.yml", status=2).stderr
    assert node.exists(gone)
    orphans = shell.json("drift", "inventory.yml", "--role", "things")["orphans"]
    assert orphans == [], "a part of the inventory makes no orphans"
    remedies = {each["name"]: each["remedy"] for each in shell.json("drift", "inventory.yml")["orphans"]}
    assert "`sparkops gc`" in remedies[gone]

    assert set(declared.gc("--images", status=2)) == {f"image {declared.image}", f"image {nameless}"}
    node.exec("sh", "-c", "flock /var/lib/sparkops/lock sleep 600 >/dev/null 2>&1 & echo $! >/run/holder")
    until(node.locked)
    assert "locked by" in shell.run("gc", "inventory.yml", "--yes", status=75).stderr
    assert node.exists(gone)
    node.exec("sh", "-c", "kill $(pgrep -P $(cat /run/holder))")
    until(lambda: not node.locked())
    found = declared.gc("--yes", "-m", "full", status=0)
    assert found[f"image {nameless}"]["outcome"] == "done"
    assert found[f"checkpoint {gone}"]["outcome"] == "done"
    assert not node.exists(gone)
    assert not node.exists(f"{MODELS}/org--dead")
    assert all(node.exists(f"{each}/config.json") for each in (kept, used, named, mixed))
    assert f"checkpoint {gone}" not in claims(node)
    assert f"checkpoint {used}" in claims(node)
    assert "gc inventory.yml" in shell.run("history").stdout

    node.exec("docker", "rm", "stopped")
    found = declared.gc("--yes", status=0)
    assert found[f"image {declared.image}"] | {"bytes": 0} == {
        "node": node.name,
        "kind": "image",
        "name": declared.image,
        "bytes": 0,
        "kept": None,
        "note": None,
        "outcome": "done",
        "reason": None,
        "unknown": False,
    }
    assert "mine/own" in node.text("docker", "images", "--format", "{{.Repository}}"), "its foreign name stays"
    assert not node.exists(used)
    shell.run("drift", "inventory.yml")


def test_another_cluster_and_what_was_here_before_are_respected_and_docker_that_is_down_too(
    lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path
) -> None:
    hub.add_repo("org/tiny", model.write(tmp_path / "tiny"))
    declared = Declared(lab, shell, node, hub)
    node.exec("docker", "pull", declared.image)
    declared.write("/srv/models/tiny")
    shell.run("apply", "inventory.yml")
    node.write(
        "/var/lib/sparkops/claims/cellar.json", json.dumps({"checkpoint /srv/models/tiny": {"phase": "ours"}}).encode()
    )

    declared.write(image=False)
    found = declared.gc("--yes", status=0)
    assert reason(found["checkpoint /srv/models/tiny"]) == "gc-used-by-cluster"
    assert reason(found[f"image {declared.image}"]) == "gc-there-before"

    node.exec("rm", "/var/lib/sparkops/claims/cellar.json")
    node.exec("systemctl", "stop", "docker.socket", "docker.service")
    assert declared.gc("--yes", status=3) == {}, "who uses what can't be told without the engine"
    assert node.exists("/srv/models/tiny/config.json")
