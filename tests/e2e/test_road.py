"""plan, apply and drift on real nodes, with a user's own role: the road and its exits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Shell
from tests.lab.node import Node

ROLE = """\
    summary: A greeting and a small service of the user's own
    scope: node
    variables:
      type: object
      properties:
        text: {type: string, default: hello, description: What to greet with}
    resources:
      - file: /etc/greeting
        template: greeting.j2
        mode: "0644"
      - unit: greeter.service
        content: |
          [Service]
          Environment=SPARKOPS_INPUTS={{ greeting.text | digest }}
          ExecStart=/usr/bin/sleep infinity
          [Install]
          WantedBy=multi-user.target
        inputs: "{{ greeting.text | digest }}"
        enabled: true
        running: true
    """


CLEAR = """
systemctl disable --now greeter.service
rm -rf /etc/greeting /etc/systemd/system/greeter.service /etc/sysctl.d/60-sparkops* /var/lib/sparkops /run/sparkops
systemctl daemon-reload
"""


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    """The module's node; what the role has put there is gone after the test."""
    yield machine
    machine.exec("sh", "-c", CLEAR, check=False)


def declare(shell: Shell, *nodes: Node, more: str = "") -> None:
    shell.write("roles/greeting/role.yml", ROLE)
    shell.write("roles/greeting/templates/greeting.j2", "{{ greeting.text }} from {{ node.name }}\n")
    lines = "\n".join(f"  {node.name}: {{host: {node.name}}}" for node in nodes)
    shell.write(
        "inventory.yml",
        f"version: 1\ncluster: test\nconnection: {{user: spark, become: true}}\nroles: [greeting]\n"
        f"nodes:\n{lines}\n{more}",
    )


ONLY = ("--role", "greeting")


def test_apply_brings_a_bare_node_there_and_a_second_one_changes_nothing(shell: Shell, node: Node) -> None:
    declare(shell, node)
    assert shell.json("plan", "inventory.yml", *ONLY, status=2)["steps"]
    assert not node.exists("/etc/greeting"), "a plan touches nothing"

    first = shell.json("apply", "inventory.yml", *ONLY)
    assert {result["outcome"] for result in first["results"]} == {"done"}
    assert node.read("/etc/greeting") == f"hello from {node.name}\n".encode()
    assert node.text("systemctl", "is-active", "greeter.service").strip() == "active"

    second = shell.run("apply", "inventory.yml", *ONLY)
    assert "as declared" in second.stdout
    assert shell.json("drift", "inventory.yml", *ONLY)["steps"] == []


def test_drift_names_what_differs_and_the_next_apply_mends_it(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.run("apply", "inventory.yml", *ONLY)
    node.write("/etc/greeting", b"vandalised\n")
    node.exec("systemctl", "stop", "greeter.service")

    drift = shell.run("drift", "inventory.yml", *ONLY, status=2)
    assert "-vandalised" in drift.stdout
    assert "greeter.service" in drift.stdout

    shell.run("apply", "inventory.yml", *ONLY, "--yes")
    shell.run("drift", "inventory.yml", *ONLY)


def test_a_restart_that_was_lost_is_made_up_for(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.run("apply", "inventory.yml", *ONLY)
    before = node.text("systemctl", "show", "-P", "MainPID", "greeter.service")
    changed = node.read("/etc/systemd/system/greeter.service").replace(b"INPUTS=", b"INPUTS=")
    node.write("/etc/systemd/system/greeter.service", changed)
    declare(shell, node, more="vars: {greeting: {text: bye}}\n")
    refused = shell.run("apply", "inventory.yml", *ONLY, status=1, asked=True)
    assert "error[apply-unconfirmed]" in refused.stderr and "interrupting" in refused.stderr
    shell.run("apply", "inventory.yml", *ONLY, "--yes")
    assert node.text("systemctl", "show", "-P", "MainPID", "greeter.service") != before
    shell.run("drift", "inventory.yml", *ONLY)


def test_three_nodes_are_brought_there_side_by_side(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    three = nodes(3)
    declare(shell, *three)
    report = shell.json("apply", "inventory.yml", *ONLY)
    assert set(report["nodes"]) == {node.name for node in three}
    assert all(node.exists("/etc/greeting") for node in three)


def test_a_paused_node_is_told_in_time_and_holds_no_other(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    alive, hung = nodes(2)
    declare(shell, alive, hung)
    with hung.paused():
        report = shell.json("apply", "inventory.yml", *ONLY, status=None, timeout=120)
    assert report["exit_status"] == 3
    assert set(report["unreachable"]) == {hung.name}
    assert alive.exists("/etc/greeting")
    shell.run("apply", "inventory.yml", *ONLY)
    assert hung.exists("/etc/greeting")


def test_a_run_is_kept_with_its_events_and_its_report(shell: Shell, node: Node) -> None:
    declare(shell, node)
    report = shell.json("apply", "inventory.yml", *ONLY)
    lines = shell.run("report", report["run"], "--events").stdout.splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events.count("StepFinished") == len(report["steps"])
    again = shell.json("report", report["run"])
    assert {key: again[key] for key in ("steps", "results", "run", "time")} == {
        key: report[key] for key in ("steps", "results", "run", "time")
    }


def test_a_report_says_who_moved_and_since_when(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.run("apply", "inventory.yml", *ONLY)
    node.write("/etc/greeting", b"moved by hand\n")
    first = shell.json("drift", "inventory.yml", *ONLY, status=2)
    second = shell.json("drift", "inventory.yml", *ONLY, status=2)
    (found,) = [each for each in second["findings"] if each["resource"].startswith("file /etc/greeting")]
    assert (found["origin"], found["since"]["run"]) == ("corrective", first["run"])
    told = shell.json("drift", "inventory.yml", "--since", "1h", status=2)
    assert [each["id"] for each in told["findings"]] == ["drift-differs"]


@pytest.mark.parametrize("who", ["nobody-here"])
def test_a_wrong_user_is_told_with_the_way_out(shell: Shell, node: Node, who: str) -> None:
    declare(shell, node)
    text = (shell.folder / "inventory.yml").read_text().replace("user: spark", f"user: {who}")
    shell.write("inventory.yml", text)
    report = shell.json("plan", "inventory.yml", *ONLY, status=3)
    assert node.name in report["unreachable"]


def test_a_declared_value_may_come_from_the_node_itself(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.write(
        "roles/greeting/role.yml",
        """\
        summary: A value that each node knows of itself
        scope: node
        variables: {type: object, properties: {text: {type: string, default: hello}}}
        resources:
          - sysctl: net.ipv4.ip_default_ttl
            value: "{{ fact('cpu.count') }}"
        """,
    )
    cores = node.text("nproc").strip()
    shell.run("apply", "inventory.yml", *ONLY)
    assert node.text("cat", "/proc/sys/net/ipv4/ip_default_ttl").strip() == cores
    shell.run("drift", "inventory.yml", *ONLY)
