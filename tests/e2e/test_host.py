"""The roles host, driver and uniform on lab nodes: what they set up, and what they find wrong and leave alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sparkops.resources.unit import Unit
from tests.e2e.applying import applying
from tests.e2e.conftest import Shell
from tests.lab.lab import Lab
from tests.lab.node import Node

LAB = """\
  host:
    os: {accept: ["debian 12"], arch: [x86_64, aarch64]}
    memory: {at_least_gib: 1}
    disk: {"/": 1}
    protection: {earlyoom: {enabled: null}}
"""
JUDGED = ("--role", "driver", "--role", "uniform")


def declare(shell: Shell, *nodes: Node, more: str = "", service: bool = False) -> None:
    lines = "\n".join(f"  {node.name}: {{host: {node.name}}}" for node in nodes)
    names = ", ".join(node.name for node in nodes)
    services = f"services: {{qwen: {{nodes: [{names}]}}}}\n" if service else ""
    head = "version: 1\ncluster: test\nconnection: {user: spark, become: true}\n"
    shell.write("inventory.yml", f"{head}vars:\n{LAB}nodes:\n{lines}\n{services}{more}")


def violations(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for each in report["violations"]:
        found.setdefault(each["id"], []).append(each)
    return found


def upgrade(node: Node, driver: str) -> None:
    """Another driver on the node, as an `apt upgrade` leaves it: the CDI specification still names the old one."""
    said = json.loads(node.read("/etc/lab/nvidia.json"))
    node.write("/etc/lab/nvidia.json", json.dumps({**said, "driver_version": driver}).encode())


def test_a_driver_of_the_590_branch_is_a_violation_with_a_remedy(shell: Shell, node: Node) -> None:
    declare(shell, node)
    good = violations(shell.json("drift", "inventory.yml", "--role", "driver"))
    assert "driver.version-denied" not in good
    assert "cdi.stale-present" not in good

    upgrade(node, "590.48.01")
    found = violations(shell.json("drift", "inventory.yml", "--role", "driver", status=2))
    (denied,) = found["driver.version-denied"]
    assert denied["node"] == node.name
    assert denied["severity"] == "error"
    assert "590.48.01" in denied["reason"]["message"]
    assert denied["reason"]["fix"]
    assert "names 580.95.05 while 590.48.01 runs" in found["cdi.stale-present"][0]["reason"]["message"]
    assert "nvidia-ctk cdi generate" in found["cdi.stale-present"][0]["reason"]["fix"]


def test_an_accepted_violation_is_told_and_is_no_drift(shell: Shell, node: Node) -> None:
    upgrade(node, "590.48.01")
    declare(shell, node, more="accept: [{id: driver.version-denied, reason: works for us with piecewise graphs}]\n")
    found = violations(shell.json("drift", "inventory.yml", "--role", "driver"))
    assert "works for us" in found["driver.version-denied"][0]["accepted"]


def test_a_node_whose_nvidia_smi_is_gone_has_no_gpu(shell: Shell, node: Node) -> None:
    node.exec("rm", "/usr/bin/nvidia-smi")
    declare(shell, node)
    found = violations(shell.json("drift", "inventory.yml", "--role", "driver", status=2))
    assert "nvidia-smi is not installed" in found["gpu.absent"][0]["reason"]["message"]


def test_mixed_drivers_of_one_service_name_both_nodes(shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    first, second = nodes(2)
    declare(shell, first, second, service=True)
    assert "alike.driver-uneven" not in violations(shell.json("drift", "inventory.yml", *JUDGED))

    upgrade(second, "580.142")
    found = violations(shell.json("drift", "inventory.yml", *JUDGED, status=2))["alike.driver-uneven"]
    assert {each["node"] for each in found} == {first.name, second.name}
    assert all(f"{first.name} 580.95.05" in each["reason"]["message"] for each in found)
    assert all(f"{second.name} 580.142" in each["reason"]["message"] for each in found)


def test_a_system_that_is_not_declared_stops_the_role_before_it_acts(shell: Shell, node: Node) -> None:
    declare(shell, node, more="")
    shell.run("apply", "inventory.yml", "--role", "host", "-e", "host.os.accept=[ubuntu 24.04]", "--yes", status=4)
    assert not node.exists("/etc/systemd/system/ssh.service.d")


def test_the_host_role_keeps_a_way_in_and_a_second_apply_changes_nothing(shell: Shell, node: Node) -> None:
    declare(shell, node)
    shell.run("apply", "inventory.yml", "--role", "host", "--yes")
    assert node.text("systemctl", "show", "-P", "OOMScoreAdjust", "ssh.service") == "-500"
    assert node.text("systemctl", "show", "-P", "MemoryMin", "ssh.service") == str(64 << 20)
    assert node.text("systemctl", "show", "-P", "MemoryMin", "user.slice") == str(128 << 20)
    assert shell.json("plan", "inventory.yml", "--role", "host")["steps"] == []

    node.write("/etc/systemd/system/ssh.service.d/60-sparkops.conf", b"[Service]\nOOMScoreAdjust=0\n")
    steps = shell.json("drift", "inventory.yml", "--role", "host", status=2)["steps"]
    assert "file /etc/systemd/system/ssh.service.d/60-sparkops.conf" in steps[0]["id"]


def test_the_gpu_clock_is_set_at_once_and_again_when_it_is_declared_anew(shell: Shell, node: Node) -> None:
    def locked() -> list[list[str]]:
        return [json.loads(line) for line in node.read("/var/log/lab-nvidia-smi.log").decode().splitlines()]

    declare(shell, node)
    clock = ("--role", "host", "-e", "host.gpu.clock=[200, 2150]")
    shell.run("apply", "inventory.yml", *clock, "--yes")
    assert locked()[-1] == ["-lgc", "200,2150"]
    assert shell.json("plan", "inventory.yml", *clock)["steps"] == []

    shell.run("apply", "inventory.yml", "--role", "host", "-e", "host.gpu.clock=[200, 2000]", "--yes")
    assert locked()[-1] == ["-lgc", "200,2000"]


def test_earlyoom_runs_with_its_declared_floor(shell: Shell, node: Node) -> None:
    def arguments() -> list[str]:
        pid = node.text("systemctl", "show", "-P", "MainPID", "earlyoom.service")
        return node.read(f"/proc/{pid}/cmdline").decode().split("\0")

    declare(shell, node)
    on = ("--role", "host", "-e", "host.protection.earlyoom.enabled=true")
    shell.run("apply", "inventory.yml", *on, "--yes")
    assert "524288,102400" in arguments()
    assert shell.json("plan", "inventory.yml", *on)["steps"] == []

    lower = (*on, "-e", "host.protection.earlyoom.term_mib=300")
    shell.run("apply", "inventory.yml", *lower, "--yes")
    assert "307200,102400" in arguments()

    off = ("--role", "host", "-e", "host.protection.earlyoom.enabled=false")
    shell.run("apply", "inventory.yml", *off, "--yes")
    assert node.exec("systemctl", "is-active", "earlyoom.service", check=False).stdout.strip() == b"inactive"


def test_a_unit_that_is_not_ours_is_never_stopped_to_be_removed(lab: Lab, node: Node) -> None:
    with applying(lab, [node.name], "unit") as road:
        for name in ("ssh.service", "system.slice"):
            (result,) = road.apply(Unit(node=node.name, name=name, state="absent"))
            assert result.reason.id == "unit-not-own"
            assert node.text("systemctl", "is-active", name) == "active"
