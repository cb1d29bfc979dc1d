"""A lock of a real registry's tag, and what plan, apply and drift make of it."""

from __future__ import annotations

import json

import yaml

from tests.e2e.conftest import Shell
from tests.lab.lab import Lab
from tests.lab.node import Node


def test_the_node_gets_what_is_locked_and_drift_says_when_upstream_has_more(lab: Lab, shell: Shell, node: Node) -> None:
    image = lab.engine_image
    service = {"nodes": [node.name], "image": {"pull": image.reference}, "model": "/srv/tiny"}
    inventory = {"version": 1, "cluster": "tests", "connection": {"user": "root"}, "nodes": {node.name: {}}}
    shell.write("inventory.yml", json.dumps({**inventory, "services": {"qwen": service}}))
    assert "not in the lock file" in shell.run("apply", "--locked", "--role", "image", status=1).stderr
    assert image.digest in shell.run("lock").stdout

    report = shell.json("apply", "inventory.yml", "--locked", "--role", "image")
    assert [step["after"]["digest"] for step in report["steps"]] == [image.digest]

    lock = shell.folder / "inventory.lock.yml"
    assert shell.json("drift", "inventory.yml", "--upstream", "--role", "image")["notices"] == []
    lock.write_text(lock.read_text().replace(image.digest, "sha256:" + "0" * 64))
    drift = shell.json("drift", "inventory.yml", "--upstream", "--role", "image", status=2)
    assert any(each["id"] == "lock-moved-upstream" and image.digest in each["message"] for each in drift["notices"])
    assert "0" * 64 in lock.read_text()


SERVING = """\
version: 1
cluster: tests
connection: {{user: spark, become: true}}
nodes: {{{node}: {{}}}}
services:
  tiny:
    nodes: [{node}]
    port: 8000
    gpus: null
    command: [serve]
    limits: {{shm_size_gib: null, ulimits: {{memlock: null, stack: null, nofile: null}}}}
    timeouts: {{first_boot_seconds: 120, cold_start_seconds: 120}}
    image: {{pull: "{image}"{image_pin}}}
    checkpoint: {{repository: lab/tiny-moe, endpoint: "{hub}"{commit}}}
"""
ROLES = [word for role in ("image", "checkpoint", "service", "health") for word in ("--role", role)]


def test_to_lock_what_runs_changes_nothing(lab: Lab, shell: Shell, node: Node) -> None:
    """Neither by the lock file nor by the same pins in the inventory: what runs is known by its content."""
    fields = {"node": node.name, "image": lab.engine_image.reference, "hub": lab.hub}
    shell.write("inventory.yml", SERVING.format(**fields, image_pin="", commit=""))
    shell.run("apply", *ROLES)
    started = node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny")
    shell.run("lock")
    assert shell.json("plan", *ROLES)["steps"] == []
    assert shell.json("apply", *ROLES, "--locked")["steps"] == []

    locked = yaml.safe_load((shell.folder / "inventory.lock.yml").read_text())
    (digest,), (commit,) = locked["images"].values(), locked["checkpoints"].values()
    (shell.folder / "inventory.lock.yml").unlink()
    shell.write(
        "inventory.yml", SERVING.format(**fields, image_pin=f", digest: '{digest}'", commit=f", commit: {commit}")
    )
    assert shell.json("plan", *ROLES)["steps"] == []

    pinned = {**fields, "image": lab.engine_image.reference.rpartition(":")[0] + "@" + digest}
    shell.write("inventory.yml", SERVING.format(**pinned, image_pin="", commit=f", revision: {commit}"))
    plan = shell.json("plan", *ROLES, status=2)
    assert not [step["id"] for step in plan["steps"] if step["disruptive"]]
    shell.run("apply", *ROLES)
    assert shell.json("plan", *ROLES)["steps"] == []
    assert node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny") == started

    shell.write("inventory.yml", SERVING.format(**pinned, image_pin="", commit=f", revision: {commit}, folder: /srv/m"))
    shell.run("apply", *ROLES)
    assert node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny") == started
    node.exec("systemctl", "restart", "tiny.service")
    shell.run("apply", *ROLES)
    mounts = node.text("docker", "inspect", "-f", "{{range .Mounts}}{{.Source}} {{end}}", "sparkops-tiny")
    assert "/srv/m" in mounts.split(), "the next start is from what is declared now"
