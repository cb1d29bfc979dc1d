"""A branch that moves: the new commit is fetched, and the engine restarted from it, in one apply."""

from __future__ import annotations

from pathlib import Path

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


def test_the_engine_is_restarted_from_the_new_commit_in_one_apply(
    lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path
) -> None:
    for seed in (0, 1):
        model.write(tmp_path / str(seed), seed=seed)
    hub.add_repo("org/tiny", tmp_path / "0")
    text = INVENTORY.format(node=node.name, image=lab.engine_image.reference, hub=hub.endpoint)
    shell.write("inventory.yml", text)
    shell.run("apply", "inventory.yml", *ROLES)
    started = node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny")

    commit = hub.add_repo("org/tiny", tmp_path / "1")
    drift = shell.json("drift", "inventory.yml", *ROLES, status=2)
    steps = {step["kind"]: step for step in drift["steps"]}
    assert "container_checkpoint" in steps["unit"]["changes"]
    assert steps["unit"]["disruptive"]

    shell.run("apply", "inventory.yml", *ROLES, "--yes")
    assert node.text("docker", "inspect", "-f", "{{.State.StartedAt}}", "sparkops-tiny") != started
    record = node.text("sh", "-c", "cat /var/lib/sparkops/models/org--tiny/main/.sparkops/manifest.json")
    assert commit in record
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []
