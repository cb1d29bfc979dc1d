"""Locks on real nodes: over all nodes of a run or none, with a holder who is named, never stale, in nobody's way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import Shell, until
from tests.lab import model as tiny
from tests.lab.hub import Fault, Hub
from tests.lab.node import Node

ROLE = """\
    summary: A file that takes as long as a test wants, and one that does not
    scope: node
    variables:
      type: object
      properties: {held: {type: boolean, default: false}}
    resources:
      - file: /srv/slow
        content: slow
        validate: [sh, -c, "{{ 'sleep 50; true' if slow.held else 'true' }}"]
      - file: /srv/after
        content: after
    """
ONLY = ("--role", "slow")


def declare(shell: Shell, *nodes: Node, held: Sequence[Node] = (), name: str = "inventory.yml") -> None:
    """An inventory of these nodes; on those that are `held` the first file is not done before `let_go`."""
    shell.write("roles/slow/role.yml", ROLE)
    lines = "\n".join(f"  {node.name}: {{slow: {{held: {json.dumps(node in held)}}}}}" for node in nodes)
    shell.write(
        name,
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nroles: [slow]\nnodes:\n{lines}\n",
    )


def acting(node: Node) -> bool:
    """Whether the slow file is being written."""
    return node.exec("pgrep", "-x", "sleep", check=False).returncode == 0


def let_go(*nodes: Node) -> None:
    """Let the slow file be done."""
    for node in nodes:
        node.exec("pkill", "-x", "sleep")


def test_a_second_apply_is_told_who_holds_the_node_and_touches_none(
    shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    one, two = nodes(2)
    declare(shell, one, two, held=[one])
    first = shell.start("apply", "inventory.yml", *ONLY, "--limit", one.name)
    until(lambda: acting(one), first)
    second = shell.run("apply", "inventory.yml", *ONLY, status=75)
    assert re.search(
        rf"error\[node-locked\]: {one.name}: locked by \S+ from \S+ for \d+ s \(apply inventory.yml\)", second.stderr
    )
    drift = shell.run("drift", "inventory.yml", *ONLY, "--format", "json", status=2)
    assert [each["args"]["node"] for each in json.loads(drift.stdout)["notices"] if each["id"] == "node-at-work"] == [
        one.name
    ]
    assert not two.exists("/srv/slow"), "none is touched where not all could be locked"
    shell.run("apply", "inventory.yml", *ONLY, "--limit", two.name)
    let_go(one)
    assert first.wait(120) == 0
    shell.run("apply", "inventory.yml", *ONLY)


def test_of_two_applies_that_begin_at_once_one_gets_all_nodes_and_the_other_none(
    shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    three = nodes(3)
    declare(shell, *three, held=three)
    both = [shell.start("apply", "inventory.yml", *ONLY, "--format", "json") for _ in range(2)]
    until(lambda: any(process.poll() is not None for process in both))
    until(lambda: all(acting(node) for node in three))
    let_go(*three)
    ended = [(process, *process.communicate(timeout=120)) for process in both]
    assert sorted(process.returncode for process, _, _ in ended) == [0, 75], ended
    for process, out, err in ended:
        if process.returncode == 75:
            assert "error[node-locked]" in err
        else:
            results = json.loads(out)["results"]
            assert {result["outcome"] for result in results} == {"done"}
            assert len(results) == 6
    shell.run("drift", "inventory.yml", *ONLY)


def test_drift_and_plan_take_no_lock_and_disturb_no_apply(shell: Shell, node: Node) -> None:
    declare(shell, node, held=[node])
    apply = shell.start("apply", "inventory.yml", *ONLY, "--format", "json")
    until(lambda: acting(node), apply)
    for command in ("drift", "plan"):
        seen = shell.json(command, "inventory.yml", *ONLY, status=2)
        assert {step["id"].split()[1] for step in seen["steps"]} == {"/srv/slow", "/srv/after"}
        assert seen["unknown"] == {}
    assert apply.poll() is None, "they looked while it was acting"
    let_go(node)
    out, err = apply.communicate(timeout=120)
    assert apply.returncode == 0, err
    assert {result["outcome"] for result in json.loads(out)["results"]} == {"done"}
    shell.run("drift", "inventory.yml", *ONLY)


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_lock_is_gone_with_whoever_held_it(shell: Shell, node: Node, end: str) -> None:
    declare(shell, node, held=[node])
    first = shell.start("apply", "inventory.yml", *ONLY)
    until(lambda: acting(node), first)
    getattr(first, end)()
    if end == "terminate":
        let_go(node)
    first.wait(120)
    until(lambda: not node.locked(), seconds=40)
    declare(shell, node)
    shell.run("apply", "inventory.yml", *ONLY)
    shell.run("drift", "inventory.yml", *ONLY)


def test_an_inventory_of_another_cluster_meets_the_same_lock(shell: Shell, node: Node) -> None:
    declare(shell, node, held=[node])
    declare(shell, node, name="other.yml")
    text = (shell.folder / "other.yml").read_text()
    shell.write("other.yml", text.replace("cluster: test", "cluster: other"))
    first = shell.start("apply", "inventory.yml", *ONLY)
    until(lambda: acting(node), first)
    assert "error[node-locked]" in shell.run("apply", "other.yml", *ONLY, status=75).stderr
    let_go(node)
    assert first.wait(120) == 0


SERVICE = """\
version: 1
cluster: test
connection: {{user: spark, become: true}}
roles: [slow]
nodes: {{{node}: {{}}}}
services:
  tiny:
    nodes: [{node}]
    port: 8000
    image: {{pull: none}}
    checkpoint: {{repository: org/tiny, revision: {revision}, endpoint: "{hub}", adopt: []}}
"""
FOLDER = "/var/lib/sparkops/models/org--tiny"


@pytest.fixture
def fetching(shell: Shell, node: Node, hub: Hub, tmp_path: Path) -> str:
    """A fetch that runs on the node as a job until the hub heals, its controller killed; the commit that it brings."""
    tiny.write(tmp_path / "model")
    (tmp_path / "model" / "model-large.safetensors").write_bytes(bytes(9_000_000))
    commit = hub.add_repo("org/tiny", tmp_path / "model")
    hub.fail("model-large*", Fault(rate=90_000))
    shell.write("roles/slow/role.yml", ROLE)
    shell.write("inventory.yml", SERVICE.format(node=node.name, hub=hub.endpoint, revision="main"))
    first = shell.start("apply", "inventory.yml", "--role", "checkpoint")
    until(lambda: hub.bytes_sent() > 100_000, first)
    first.kill()
    first.wait(180)
    return commit


def running_jobs(node: Node) -> int:
    script = "for lock in /run/sparkops/jobs/*/lock; do flock -n $lock true || echo busy; done"
    return len(node.text("sh", "-c", script).split())


def free(node: Node) -> None:
    """Until the lock of the killed run is dropped by its worker."""
    until(lambda: not node.locked())


def test_an_apply_of_something_else_goes_on_beside_a_running_job(shell: Shell, node: Node, fetching: str) -> None:
    free(node)
    assert running_jobs(node) == 1
    shell.run("apply", "inventory.yml", *ONLY)
    assert node.read("/srv/after") == b"after"
    assert running_jobs(node) == 1, "the fetch went on"


def test_an_apply_of_the_same_joins_the_running_job(shell: Shell, node: Node, hub: Hub, fetching: str) -> None:
    free(node)
    process = shell.start("apply", "inventory.yml", "--role", "checkpoint", "--format", "json")
    until(lambda: shell.told(process), process)
    hub.heal()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert {result["outcome"] for result in json.loads(out)["results"]} == {"done"}
    assert fetching in node.text("cat", f"{FOLDER}/main/.sparkops/manifest.json")
    assert hub.bytes_sent() < 2 * int(node.text("du", "-sb", f"{FOLDER}/main").split()[0]), "nothing came twice"
    assert running_jobs(node) == 0


def test_an_apply_with_other_inputs_leaves_the_running_job_alone(
    shell: Shell, node: Node, hub: Hub, fetching: str, tmp_path: Path
) -> None:
    free(node)
    tiny.write(tmp_path / "other", seed=1)
    hub.add_repo("org/tiny", tmp_path / "other")
    report = shell.json("apply", "inventory.yml", "--role", "checkpoint", status=4)
    (result,) = (each for each in report["results"] if each["outcome"] == "failed")
    assert result["reason"]["id"] == "job-busy"
    assert running_jobs(node) == 1
