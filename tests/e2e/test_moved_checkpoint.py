"""What an engine was started from: a branch that moves, and files that were damaged when it started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell
from tests.lab import model
from tests.lab.hub import Hub
from tests.lab.lab import Lab
from tests.lab.node import Node

INVENTORY = """\
version: 1
cluster: moved
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
    image: {{pull: "{image}"}}
    checkpoint: {{repository: org/tiny, endpoint: "{hub}", adopt: []}}
"""
ROLES = [word for role in ("image", "checkpoint", "service", "health") for word in ("--role", role)]
WEIGHTS = "/var/lib/sparkops/models/org--tiny/main/model-00001-of-*.safetensors"


@pytest.fixture
def started(lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> Callable[[], str]:
    """The service applied on a node; called: when its container was started."""
    model.write(tmp_path / "0", seed=0)
    hub.add_repo("org/tiny", tmp_path / "0")
    shell.write("inventory.yml", INVENTORY.format(node=node.name, image=lab.engine_image.reference, hub=hub.endpoint))
    shell.run("apply", "inventory.yml", *ROLES)
    return lambda: node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny")


def test_the_engine_is_restarted_from_the_new_commit_in_one_apply(
    shell: Shell, node: Node, hub: Hub, tmp_path: Path, started: Callable[[], str]
) -> None:
    before = started()
    model.write(tmp_path / "1", seed=1)
    commit = hub.add_repo("org/tiny", tmp_path / "1")
    drift = shell.json("drift", "inventory.yml", *ROLES, status=2)
    steps = {step["kind"]: step for step in drift["steps"]}
    assert "container_checkpoint" in steps["unit"]["changes"]
    assert steps["unit"]["disruptive"]

    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    assert started() != before
    record = node.text("sh", "-c", "cat /var/lib/sparkops/models/org--tiny/main/.sparkops/manifest.json")
    assert commit in record
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []


def damage(node: Node) -> None:
    node.exec("sh", "-c", f"printf otherwise | dd of=$(echo {WEIGHTS}) bs=1 seek=5000 conv=notrunc")


def test_an_engine_that_started_on_damaged_files_is_started_again_with_their_repair(
    shell: Shell, node: Node, started: Callable[[], str]
) -> None:
    damage(node)
    node.exec("systemctl", "restart", "tiny.service")
    before = started()
    steps = {step["kind"]: step for step in shell.json("drift", "inventory.yml", *ROLES, status=2)["steps"]}
    assert "container_checkpoint" in steps["unit"]["changes"] and steps["unit"]["disruptive"]
    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    assert started() != before
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []


@pytest.mark.parametrize("order", ["damaged after the start", "touched before it"])
def test_an_engine_that_started_on_the_right_content_goes_on(
    shell: Shell, node: Node, started: Callable[[], str], order: str
) -> None:
    if order == "damaged after the start":
        damage(node)
    else:
        node.exec("sh", "-c", f"touch $(ls {WEIGHTS})")
        node.exec("systemctl", "restart", "tiny.service")
    before = started()
    assert shell.json("drift", "inventory.yml", *ROLES, status=2)["steps"]
    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    assert started() == before
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []
