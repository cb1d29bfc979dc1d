"""Cables that are measured before engines use them: what a broken, silent or changed one means for an apply."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_fabric import LARGE, SOME, cabled, losing, pair, tiny_model
from tests.e2e.test_ranks import UNIT, inventory
from tests.lab.lab import Lab
from tests.lab.node import Node

FABRIC = ("--role", "fabric")
ALL = [word for role in ("image", "fabric", "service", "health") for word in ("--role", role)]


@pytest.fixture
def ends(lab: Lab, nodes: Callable[[int], list[Node]]) -> list[Node]:
    """Two nodes with a cable; the second measures it, since it is the later one."""
    one, other = nodes(2)
    cabled(one, other)
    return [one, other]


def unproven(report: dict[str, Any]) -> list[str]:
    return [each["args"]["reason"]["id"] for each in report["notices"] if each["id"] == "fabric-path-unproven"]


def test_no_rank_of_an_engine_is_started_over_a_broken_cable(lab: Lab, shell: Shell, ends: list[Node]) -> None:
    declared = inventory(lab.engine_image.reference, ends)
    declared["nodes"] = {node.name: {} for node in ends}
    declared["vars"] = json.loads(pair(*ends, measure=True))["vars"]
    declared["services"]["qwen"]["container"]["devices"] = []
    shell.write("inventory.yml", json.dumps(declared))
    for node in ends:
        tiny_model(node)

    with losing(ends[0], LARGE):
        report = shell.json("apply", "inventory.yml", *ALL, "--yes", status=4)

    results = {each["id"]: each for each in report["results"]}
    assert results[f"fabric_path {ends[0].name} @{ends[1].name}"]["reason"]["id"] == "fabric-path-broken"
    for node in ends:
        assert results[f"unit {UNIT} @{node.name}"]["outcome"] == "not-attempted"
        assert node.text("systemctl", "show", "-P", "ExecMainPID", UNIT) == "0", "it was never started"
        assert node.text("docker", "ps", "-aq") == ""

    shell.json("apply", "inventory.yml", *ALL, "--yes")
    assert shell.json("status")["services"][0]["serving"]


@pytest.mark.slow
def test_a_cable_to_a_node_that_was_silent_or_left_out_is_measured_once_both_are_there(
    shell: Shell, ends: list[Node]
) -> None:
    one, other = ends
    shell.write("inventory.yml", pair(one, other, measure=True))
    alone = shell.json("apply", "inventory.yml", *FABRIC, "--limit", other.name, "--yes")
    assert {each["outcome"] for each in alone["results"]} == {"done"}
    assert unproven(shell.json("plan", "inventory.yml", *FABRIC, "--limit", other.name)) == ["node-not-in-run"]

    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    told = shell.json("plan", "inventory.yml", *FABRIC)
    assert (told["steps"], unproven(told)) == ([], [])

    other.exec("rm", f"/var/lib/sparkops/fabric/{one.name}.json")
    one.exec("systemctl", "stop", "ssh.socket", "ssh")
    report = shell.json("apply", "inventory.yml", *FABRIC, "--yes", status=None)
    assert [each["outcome"] for each in report["results"]] == ["done"]
    assert shell.json("plan", "inventory.yml", *FABRIC, status=3)["steps"] == [], "it is told, and tried no more"

    one.exec("systemctl", "start", "ssh")
    (step,) = shell.json("plan", "inventory.yml", *FABRIC, status=2)["steps"]
    assert step["id"] == f"fabric_path {one.name} @{other.name}"
    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    told = shell.json("plan", "inventory.yml", *FABRIC)
    assert (told["steps"], unproven(told)) == ([], [])


@pytest.mark.slow
def test_an_end_that_was_changed_by_hand_is_drift_on_either_node(shell: Shell, ends: list[Node]) -> None:
    one, other = ends
    shell.write("inventory.yml", pair(one, other, measure=True))
    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    for node in ends:
        node.exec("ip", "link", "set", "cx1", "mtu", "1400")
        (step,) = shell.json("drift", "inventory.yml", *FABRIC, status=2)["steps"]
        assert step["id"] == f"fabric_path {one.name} @{other.name}"
        report = shell.json("apply", "inventory.yml", *FABRIC, "--yes", status=4)
        assert report["results"][0]["reason"]["args"]["reason"]["id"] == "fabric-mtu-differs"
        node.exec("ip", "link", "set", "cx1", "mtu", "1500")
        shell.json("drift", "inventory.yml", *FABRIC, status=2)
        shell.json("apply", "inventory.yml", *FABRIC, "--yes")
        assert shell.json("drift", "inventory.yml", *FABRIC)["steps"] == []


def test_a_cable_that_was_good_once_and_is_found_broken_is_not_taken_for_good(shell: Shell, ends: list[Node]) -> None:
    """Measured until it tells something: on a busy machine TCP proves neither."""
    one, other = ends
    shell.write("inventory.yml", pair(one, other, measure=True))
    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    path = f"fabric_path {one.name} @{other.name}"
    apply = ("apply", "inventory.yml", *FABRIC, "--yes")
    with losing(one, SOME):
        until(lambda: shell.run(*apply, "--replace", path, status=None).returncode == 4, seconds=180)
        assert [step["id"] for step in shell.json("drift", "inventory.yml", *FABRIC, status=2)["steps"]] == [path]
        shell.json(*apply, status=4)
    until(lambda: shell.run(*apply, status=None).returncode == 0, seconds=180)
    assert shell.json("drift", "inventory.yml", *FABRIC)["steps"] == []


@pytest.mark.slow
def test_both_ends_may_change_in_the_apply_that_measures(shell: Shell, ends: list[Node]) -> None:
    """The first node is done later, so that its MTU is still the old one when the second begins to measure."""
    one, other = ends
    shell.write("inventory.yml", pair(one, other, measure=True))
    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    one.write(
        "/usr/local/sbin/netplan",
        b'#!/bin/sh\n[ "$1" != apply ] || sleep 4\nexec /usr/sbin/netplan "$@"\n',
        mode=0o755,
    )
    shell.write("inventory.yml", pair(one, other, measure=True, mtu=1400))
    shell.json("apply", "inventory.yml", *FABRIC, "--yes")
    assert shell.json("plan", "inventory.yml", *FABRIC)["steps"] == []


def test_a_wait_for_the_other_ends_addresses_ends_with_the_run(shell: Shell, ends: list[Node]) -> None:
    addresses = zip(ends, ("10.9.0.1", "10.9.0.2"), strict=True)
    declared = json.loads(pair(*ends, measure=True))
    declared["vars"] = {"fabric": {"measure": True}}
    declared["nodes"] = {node.name: {"fabric": {"address": address}} for node, address in addresses}
    ends[1].exec("ip", "address", "add", "10.9.0.2/24", "dev", "cx0")
    shell.write("inventory.yml", json.dumps(declared))

    process = shell.start("apply", "inventory.yml", *FABRIC, "--yes", "--format", "json")
    until(lambda: "waiting for the links" in str(shell.told(process)), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 130
    assert [each["outcome"] for each in json.loads(said)["results"]] == ["interrupted"]
