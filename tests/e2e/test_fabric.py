"""The fabric on real nodes: what a rank's environment says of its host."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.e2e.conftest import Shell
from tests.e2e.test_ranks import inventory
from tests.lab.lab import Lab
from tests.lab.node import Node

ROLES = ("--role", "image", "--role", "service")


def test_a_rank_has_the_interface_and_address_that_were_found_on_its_node(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    head, other = nodes(2)
    declared = inventory(lab, head, other)
    declared["nodes"] = {head.name: {}, other.name: {}}
    declared["services"]["qwen"]["container"]["devices"] = []
    shell.write("inventory.yml", json.dumps(declared))

    plan = shell.json("plan", "inventory.yml", *ROLES, status=2)

    assert plan["unknown"] == {}
    specs = [step for step in plan["steps"] if step["id"].startswith("file /etc/sparkops/services/qwen.json")]
    assert len(specs) == 2
    for step, node in zip(sorted(specs, key=lambda each: each["node"] != head.name), (head, other), strict=True):
        said = "".join(line[1:] for line in step["diff"].splitlines(keepends=True) if line.startswith("+"))
        spec = json.loads(said.partition("\n")[2])
        (interface,) = [
            each["ifname"]
            for each in json.loads(node.text("ip", "-j", "address"))
            if node.address in [found.get("local") for found in each["addr_info"]]
        ]
        assert spec["environment"]["NCCL_SOCKET_IFNAME"] == spec["environment"]["GLOO_SOCKET_IFNAME"] == interface
        assert spec["environment"]["VLLM_HOST_IP"] == node.address
        assert f"--master-addr {head.address}" in " ".join(spec["argv"])


def test_an_ip_that_hangs_makes_the_service_unknown_and_changes_nothing(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    """What a wedged network lock of the kernel looks like (MiaAI-Lab pull request 157)."""
    head, other = nodes(2)
    declared = inventory(lab, head, other)
    shell.write("inventory.yml", json.dumps(declared))
    other.write("/usr/local/sbin/ip", b"#!/bin/sh\nexec sleep 300\n", mode=0o755)
    try:
        plan = shell.json("plan", "inventory.yml", *ROLES, status=2)
    finally:
        other.exec("rm", "-f", "/usr/local/sbin/ip")

    assert f"unit qwen.service @{other.name}" in plan["unknown"]
    assert not [step for step in plan["steps"] if step["id"] == f"unit qwen.service @{other.name}"]
