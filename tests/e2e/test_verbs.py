"""The verbs of every day on real nodes: a service with the small engine, asked and switched by the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Shell
from tests.e2e.test_service import PORT, UNIT, Service
from tests.lab.lab import Lab
from tests.lab.node import Node


@pytest.fixture
def serving(lab: Lab, shell: Shell, node: Node) -> Service:
    """The service `qwen`, applied and answering."""
    service = Service(lab, shell, node)
    service.declare()
    service.apply()
    return service


def test_status_tells_what_runs_since_when_and_whether_it_answers(serving: Service, shell: Shell) -> None:
    name = serving.node.name
    found = shell.json("status")
    (node,) = found["nodes"]
    assert node["reachable"]
    assert 0 < node["memory_available_bytes"] <= node["memory_total_bytes"]
    assert node["jobs"] == []
    assert node["lock"] is None
    (service,) = found["services"]
    (rank,) = service["ranks"]
    assert service["serving"]
    assert service["endpoint"].endswith(f":{PORT}/v1")
    assert (rank["node"], rank["unit"], rank["answers"], rank["model"]) == (name, UNIT, True, "/srv/tiny")
    assert rank["state"] == "active (running)"
    assert 0 <= found["time"] - rank["since"] < 600

    screen = shell.run("status").stdout
    assert "answers in" in screen
    assert "active (running)" in screen

    serving.ask("/lab/mode", "hang")
    hung = shell.run("status", status=2).stdout
    assert "no completion within" in hung


def test_status_tells_of_a_silent_node_beside_the_others(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    alive, hung = nodes(2)
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true, connect_timeout: 4}}\n"
        f"nodes: {{{alive.name}: {{}}, {hung.name}: {{}}}}\n",
    )
    alive.exec("mkdir", "-p", "/var/lib/sparkops")
    alive.write("/var/lib/sparkops/lock", b'{"who": "ada", "from": "attic", "command": "apply x.yml", "since": 1}')
    locking = ("systemd-run", "--unit=lab-lock", "flock", "/var/lib/sparkops/lock", "sleep", "60")
    alive.exec(*locking)
    with hung.paused():
        found = shell.json("status", status=3)
    by_name = {node["name"]: node for node in found["nodes"]}
    assert by_name[alive.name]["reachable"]
    assert by_name[alive.name]["lock"]["who"] == "ada"
    assert not by_name[hung.name]["reachable"]
    assert by_name[hung.name]["why"]
