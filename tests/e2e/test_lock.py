"""A lock of a real registry's tag, and what plan, apply and drift make of it."""

from __future__ import annotations

import json

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
