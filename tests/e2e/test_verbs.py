"""The verbs of every day on real nodes: a service with the small engine, asked and switched by the command line."""

from __future__ import annotations

import json
import signal
import time
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
    plain(shell, alive, hung)
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


def plain(shell: Shell, *nodes: Node) -> None:
    """An inventory of these nodes and nothing more."""
    names = ", ".join(f"{node.name}: {{}}" for node in nodes)
    way = "connection: {user: spark, become: true, connect_timeout: 4}"
    shell.write("inventory.yml", f"version: 1\ncluster: test\n{way}\nnodes: {{{names}}}\n")


def test_logs_print_and_follow_what_a_service_says(serving: Service, shell: Shell) -> None:
    serving.node.exec("sh", "-c", r"printf 'evil \033[31m red\n' | systemd-cat -t x")
    whole = shell.run("logs", "qwen", "-n", "1000").stdout
    assert "sparkops:" in whole
    assert "Starting" in whole, "what systemd says of the unit is in it"
    assert len(shell.run("logs", "qwen", "-n", "3").stdout.splitlines()) == 3

    following = shell.start("logs", "qwen", "-f", "-n", "0", "--format", "json")
    try:
        time.sleep(4)
        serving.node.exec("systemctl", "stop", UNIT)
        assert following.stdout is not None
        entry = json.loads(following.stdout.readline())
        assert entry["node"] == serving.node.name
        assert abs(entry["time"] - time.time()) < 60
    finally:
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=20)
    assert following.returncode == 130
    assert "Traceback" not in err
    time.sleep(1)
    assert "journalctl" not in serving.node.text("ps", "ax"), "nothing is left behind on the node"

    assert "did you mean qwen" in shell.run("logs", "qwne", status=1).stderr


def test_a_program_runs_on_nodes_side_by_side_without_a_shell(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    one, two = nodes(2)
    plain(shell, one, two)
    done = shell.run("exec", "all", "--", "echo", "$HOME; a  b")
    lines = sorted(done.stdout.splitlines())
    assert lines == sorted(f"{node.name} | $HOME; a  b" for node in (one, two))

    one.write("/etc/only-here", b"x")
    failed = shell.run("exec", "all", "--", "cat", "/etc/only-here", status=4)
    assert f"{one.name} | x" in failed.stdout
    assert f"{two.name} ✗ exit status 1" in failed.stderr

    alone = shell.run("exec", one.name, "--", "printf", r"\033[31mred\001\n")
    assert "\033" not in alone.stdout
    assert two.name not in alone.stdout

    started = time.monotonic()
    late = shell.run(
        "exec", one.name, "--timeout", "1", "--format", "json", "--", "sh", "-c", "echo hi; sleep 500", status=4
    )
    assert time.monotonic() - started < 20
    answer = json.loads(late.stdout)["nodes"][one.name]
    assert (answer["stdout"], answer["timed_out"], answer["status"]) == ("hi\n", True, None)
    assert "sleep 500" not in one.text("ps", "ax")

    assert "not installed" in shell.run("exec", one.name, "--", "no-such-program", status=4).stderr
    assert "write --" in shell.run("exec", one.name, status=1).stderr
    with two.paused():
        assert "no-such" not in shell.run("exec", "all", "--", "true", status=3).stderr
