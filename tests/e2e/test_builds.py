"""Declared builds on real nodes by the command line: built, left alone, repaired, resumed, moved, refused in words."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.worker import checkpoints_made as made

ROLES = ("--role", "checkpoint")
BUILT = "/srv/models/built"
STEPS = "[hybrid: {donor: org/fp8}, mtp: {donor: org/bf16}, lm_head: int8]"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An INT4 base without its prediction head, and the donors of both steps, with the true names."""
    root = tmp_path_factory.mktemp("models")
    made.save(root / "int4", made.autoround(made.SMALL, mtp=False), made.autoround_config(made.SMALL))
    made.save(root / "fp8", made.fp8(made.SMALL), made.config(made.SMALL), shards=2)
    made.save(root / "bf16", made.bf16(made.SMALL), made.config(made.SMALL))
    return root


@pytest.fixture
def filled(hub: Hub, models: Path) -> Hub:
    for name in ("int4", "fp8", "bf16"):
        hub.add_repo(f"org/{name}", models / name)
    return hub


def declare(shell: Shell, node: Node, hub: Hub, steps: str = STEPS, more: str = f"folder: {BUILT}") -> None:
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: builds\nconnection: {{user: spark, become: true}}\nnodes:\n  {node.name}: {{}}\n"
        f"services:\n  tiny:\n    nodes: [{node.name}]\n    image: {{pull: none}}\n"
        f'    checkpoint:\n      repository: org/int4\n      endpoint: "{hub.endpoint}"\n'
        f"      steps: {steps}\n      {more}\n",
    )


def built(report: dict[str, Any]) -> dict[str, Any]:
    """The step of the built folder in a report."""
    return next(step for step in report["steps"] if step["kind"] == "built_checkpoint")


def inodes(node: Node) -> dict[str, str]:
    lines = node.text("sh", "-c", f"cd {BUILT} && stat -c '%n %i' *.safetensors").splitlines()
    return dict(line.split() for line in lines)


def test_it_is_built_left_alone_repaired_and_built_anew_when_a_donor_moves(
    shell: Shell, node: Node, filled: Hub, models: Path, tmp_path: Path
) -> None:
    declare(shell, node, filled)
    shell.run("apply", "inventory.yml", "--yes", *ROLES)
    filled.forget()
    assert "as declared" in shell.run("apply", "inventory.yml", *ROLES).stdout
    assert filled.bytes_sent() == 0
    record = json.loads(node.read(f"{BUILT}/.sparkops/manifest.json"))
    assert [next(iter(step)) for step in record["built"]["steps"]] == ["hybrid", "mtp", "lm_head"]
    told = {each["folder"]: each for each in shell.json("checkpoint", "verify")["checkpoints"]}
    assert told[BUILT]["wrong"] == told[BUILT]["missing"] == []
    assert node.text("stat", "-c", "%U", BUILT) == "spark"

    before = inodes(node)
    damaged = sorted(before)[0]
    node.exec("sh", "-c", f"printf rot | dd of={BUILT}/{damaged} bs=1 seek=20000 conv=notrunc")
    drift = shell.json("drift", "inventory.yml", *ROLES, status=2)
    assert built(drift)["before"]["unverified"] == [damaged]
    filled.forget()
    shell.run("apply", "inventory.yml", "--yes", *ROLES)
    after = inodes(node)
    assert [name for name in before if after[name] != before[name]] == [damaged]

    other = made.save(tmp_path / "bf16", made.bf16(made.SMALL), made.config(made.SMALL))
    (other / "README.md").write_text("moved")
    commit = filled.add_repo("org/bf16", other)
    drift = shell.json("drift", "inventory.yml", *ROLES, status=2)
    assert {"donors", "identity"} <= set(built(drift)["changes"])
    assert f"org/bf16@{commit[:12]}" in built(drift)["after"]["donors"]
    shell.run("apply", "inventory.yml", "--yes", *ROLES)
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []
    kept = shell.json("gc", "inventory.yml", "--checkpoints")["items"]
    assert all(item["kept"] for item in kept), kept


def test_a_killed_build_is_resumed_and_a_second_run_meanwhile_is_told_who_works(
    shell: Shell, node: Node, filled: Hub
) -> None:
    declare(shell, node, filled)
    filled.fail("*-of-00002.safetensors", Fault(stall_after=2000))
    first = shell.start("apply", "inventory.yml", "--yes", *ROLES)
    pid = until(lambda: _building(node))
    second = shell.run("apply", "inventory.yml", "--yes", *ROLES, status=75)
    assert "apply inventory.yml" in second.stderr
    node.exec("kill", "-9", str(pid))
    out, err = first.communicate(timeout=180)
    assert first.returncode == 4, out + err
    assert "ended without a result: it was killed; last progress: " in out
    assert not node.exists(BUILT)
    filled.heal()
    shell.run("apply", "inventory.yml", "--yes", *ROLES)
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []


def _building(node: Node) -> int:
    text = node.text("sh", "-c", "cat /run/sparkops/jobs/*/job.json 2>/dev/null || true")
    for part in text.replace("}{", "}\n{").splitlines():
        told = json.loads(part)
        if str(told.get("module")).endswith(".built_checkpoint"):
            return int(told["pid"])
    return 0


def test_what_goes_wrong_is_told_with_the_step_and_nothing_is_published(
    shell: Shell, node: Node, filled: Hub, models: Path
) -> None:
    only = "[hybrid: {donor: org/fp8}]"
    declare(shell, node, filled, only)
    filled.add_repo("org/fp8", models / "fp8", gated=True)
    report = shell.json("drift", "inventory.yml", *ROLES, status=2)
    assert "the step hybrid takes weights from org/fp8@main: the repository is gated" in json.dumps(report)
    filled.add_repo("org/fp8", models / "fp8")
    filled.fail("model-00001-of-00002*", Fault(size_delta=7))
    done = failed(shell)
    assert "model-00001-of-00002.safetensors" in done and "are served, the manifest says" in done
    filled.heal()

    declare(shell, node, filled, "[hybrid: {donor: org/bf16}]")
    assert "hybrid: 12 of 12 layers cannot be taken from org/bf16@" in failed(shell)

    node.tmpfs("/srv/models", "600k")
    declare(shell, node, filled, only)
    assert f"not enough space for {BUILT}" in failed(shell)
    assert not node.exists(BUILT)
    node.exec("umount", "/srv/models")
    filled.fail("model-00002-of-00002*", Fault(status=429, retry_after=1), times=1)
    filled.fail("model-00001-of-00002*", Fault(ignore_range=True), times=1)
    shell.run("apply", "inventory.yml", "--yes", *ROLES)
    assert shell.json("drift", "inventory.yml", *ROLES)["steps"] == []


def failed(shell: Shell) -> str:
    done: subprocess.CompletedProcess[str] = shell.run("apply", "inventory.yml", "--yes", *ROLES, status=4)
    return done.stdout + done.stderr


SERVED = """\
version: 1
cluster: built
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
    checkpoint: {{repository: org/tiny, endpoint: "{hub}", adopt: [], steps: [mtp: {{donor: org/donor}}]}}
"""


@pytest.mark.slow
def test_the_engine_serves_the_built_one_and_is_restarted_when_it_is_rebuilt(
    lab: Lab, shell: Shell, node: Node, hub: Hub, tmp_path: Path
) -> None:
    roles = [word for role in ("image", "checkpoint", "service", "health") for word in ("--role", role)]
    folder = tiny.write(tmp_path / "tiny")
    hub.add_repo("org/tiny", folder)
    hub.add_repo("org/donor", folder)
    shell.write("inventory.yml", SERVED.format(node=node.name, image=lab.engine_image.reference, hub=hub.endpoint))
    shell.run("apply", "inventory.yml", *roles)
    inspect = ("docker", "inspect", "-f", "{{.State.StartedAt}} {{range .Mounts}}{{.Source}} {{end}}", "sparkops-tiny")
    started = node.text(*inspect)
    assert "/models/org--tiny/main--built-" in started

    (folder / "README.md").write_text("moved")
    hub.add_repo("org/donor", folder)
    drift = shell.json("drift", "inventory.yml", *roles, status=2)
    assert "container_checkpoint" in next(step for step in drift["steps"] if step["kind"] == "unit")["changes"]
    shell.run("apply", "inventory.yml", *roles, "--yes")
    assert node.text(*inspect) != started
    assert shell.json("drift", "inventory.yml", *roles)["steps"] == []
