"""The fabric on real nodes: what a rank's environment says of its host, addresses, and a change that is taken back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import Shell, until
from tests.e2e.test_ranks import inventory
from tests.lab.lab import Lab
from tests.lab.machine import run
from tests.lab.node import Node

ROLES = ("--role", "image", "--role", "service")


def test_a_rank_has_the_interface_and_address_that_were_found_on_its_node(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    head, other = nodes(2)
    declared = inventory(lab.engine_image.reference, [head, other])
    declared["nodes"] = {head.name: {}, other.name: {}}
    declared["services"]["qwen"]["container"]["devices"] = []
    shell.write("inventory.yml", json.dumps(declared))

    plan = shell.json("plan", "inventory.yml", *ROLES, status=2)

    assert plan["unknown"] == {}
    assert {f"unit qwen.service @{node.name}" for node in (head, other)} <= {step["id"] for step in plan["steps"]}

    roles = [*ROLES, "--role", "health"]
    for node in (head, other):
        tiny_model(node)
    shell.run("apply", "inventory.yml", *roles, "--yes", status=None)
    for node in (head, other):
        spec = json.loads(node.read("/etc/sparkops/services/qwen.json"))
        (interface,) = [
            each["ifname"]
            for each in json.loads(node.text("ip", "-j", "address"))
            if node.address in [found.get("local") for found in each["addr_info"]]
        ]
        assert spec["environment"]["NCCL_SOCKET_IFNAME"] == spec["environment"]["GLOO_SOCKET_IFNAME"] == interface
        assert spec["environment"]["VLLM_HOST_IP"] == node.address
        assert f"--master-addr {head.address}" in " ".join(spec["argv"])
    assert shell.json("plan", "inventory.yml", *ROLES)["steps"] == [], "the digest that runs is that of the filled text"


def tiny_model(node: Node) -> None:
    header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    node.exec("mkdir", "-p", "/srv/tiny")
    node.write("/srv/tiny/config.json", b"{}")
    node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")


def test_an_ip_that_hangs_makes_the_service_unknown_and_changes_nothing(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    """What a wedged network lock of the kernel looks like (MiaAI-Lab pull request 157)."""
    head, other = nodes(2)
    declared = inventory(lab.engine_image.reference, [head, other])
    shell.write("inventory.yml", json.dumps(declared))
    other.write("/usr/local/sbin/ip", b"#!/bin/sh\nexec sleep 300\n", mode=0o755)
    try:
        plan = shell.json("plan", "inventory.yml", *ROLES, status=2)
    finally:
        other.exec("rm", "-f", "/usr/local/sbin/ip")

    assert f"unit qwen.service @{other.name}" in plan["unknown"]
    assert not [step for step in plan["steps"] if step["id"] == f"unit qwen.service @{other.name}"]


def cabled(one: Node, other: Node) -> None:
    """Two links between two nodes, as the twins of one cable; the interfaces are not a ConnectX-7's, so they are named.

    `udevadm trigger` fails in a node, whose /sys is read-only.
    """
    for name in ("cx0", "cx1"):
        ends = ["type", "veth", "peer", "name", name, "netns", str(other.pid)]
        run(["ip", "link", "add", name, "netns", str(one.pid), *ends], root=True)
    for node in (one, other):
        node.exec("sh", "-c", "for each in cx0 cx1; do ip link set $each up; done; systemctl start systemd-networkd")
        node.write("/usr/local/sbin/udevadm", b"#!/bin/sh\nexit 0\n", mode=0o755)


def pair(one: Node, other: Node, **fabric: object) -> str:
    ports = {"p0": ["cx0", "cx1"]}
    declared = {"topology": "pair", "subnet": "192.168.100.0/24", "interfaces": ports, **fabric}
    return json.dumps(
        {
            "version": 1,
            "cluster": "tests",
            "connection": {"user": "root"},
            "vars": {"fabric": declared},
            "nodes": {one.name: {}, other.name: {}},
        }
    )


def addresses(node: Node, interface: str) -> list[str]:
    (found,) = json.loads(node.text("ip", "-j", "address", "show", "dev", interface))
    return [f"{each['local']}/{each['prefixlen']}" for each in found["addr_info"] if each["family"] == "inet"]


def test_a_pair_gets_its_addresses_keeps_them_and_needs_nothing_more(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    one, other = nodes(2)
    cabled(one, other)
    shell.write("inventory.yml", pair(one, other, mtu=9000))

    report = shell.json("apply", "inventory.yml", "--role", "fabric", "--yes")

    assert [each["outcome"] for each in report["results"]] == ["done", "done"]
    assert (addresses(one, "cx0"), addresses(one, "cx1")) == (["192.168.100.10/24"], ["192.168.101.10/24"])
    assert (addresses(other, "cx0"), addresses(other, "cx1")) == (["192.168.100.11/24"], ["192.168.101.11/24"])
    assert one.exec("ping", "-c1", "-W2", "-M", "do", "-s", "8972", "192.168.101.11", check=False).returncode == 0
    assert one.exists("/etc/netplan/60-sparkops-fabric.yaml") and not one.exists("/run/netplan/60-sparkops-fabric.yaml")
    assert "sparkops-fabric-undo" not in one.text("systemctl", "list-timers", "--all")
    assert shell.json("plan", "inventory.yml", "--role", "fabric")["steps"] == []


def test_a_change_that_cuts_new_connections_is_taken_back_by_the_node(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    """The session that makes the change lives on; only a new one shows that there is no way in any more."""
    one, other = nodes(2)
    cabled(one, other)
    one.exec("ip", "address", "add", "10.9.0.1/24", "dev", "cx0")
    drop = "-p tcp --dport 22 --syn -j DROP"
    one.write(
        "/usr/local/sbin/netplan",
        f'#!/bin/sh\n/usr/sbin/netplan "$@"\nstatus=$?\n[ "$1" != apply ] || [ -e /tmp/cut ] || '
        f"{{ touch /tmp/cut; iptables -I INPUT {drop}; }}\nexit $status\n".encode(),
        mode=0o755,
    )
    shell.write("inventory.yml", pair(one, other))

    report = shell.json("apply", "inventory.yml", "--role", "fabric", "--limit", one.name, "--yes", status=4)

    one.exec("sh", "-c", f"iptables -D INPUT {drop}")
    (result,) = [each for each in report["results"] if each["node"] == one.name]
    assert result["reason"]["id"] == "fabric-not-confirmed"
    assert addresses(one, "cx0") == ["10.9.0.1/24"], "what was there before is there again"
    assert not one.exists("/etc/netplan/60-sparkops-fabric.yaml")
    assert not one.exists("/run/netplan/60-sparkops-fabric.yaml")


def addressed_pair(shell: Shell, nodes: Callable[[int], list[Node]]) -> list[Node]:
    """Two nodes with a cable, whose links have their addresses."""
    made = nodes(2)
    cabled(*made)
    shell.write("inventory.yml", pair(*made))
    shell.json("apply", "inventory.yml", "--role", "fabric", "--yes")
    return made


def test_a_pair_is_measured_and_another_mtu_is_found(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    _, other = addressed_pair(shell, nodes)

    told = shell.json("fabric", "check", "--seconds", "1", status=None)

    assert [each["twin"] for each in told["figures"]] == [0, 1, None], "each link alone, then both"
    assert all(each["gbits"] > 0 for each in told["figures"]), "how much, the load of this machine decides"
    assert [each["mtu"] for each in told["figures"]] == [1500, 1500, None]
    assert {each["method"] for each in told["figures"]} == {"tcp"}

    other.exec("ip", "link", "set", "cx1", "mtu", "1400")
    told = shell.json("fabric", "check", "--seconds", "1", status=2)
    assert [each["gbits"] is None for each in told["figures"]] == [False, True], "nothing goes over a broken link"
    assert told["figures"][1]["reason"]["id"] == "fabric-mtu-differs"


LARGE = "-m length --length 1401:65535"
"""Packets whose loss is told however busy the machine is."""
SOME = "-p tcp -m statistic --mode random --probability 0.2"
"""Packets without which TCP carries a fraction of the speed."""


@contextmanager
def losing(node: Node, packets: str) -> Iterator[None]:
    """The first link of the cable loses these packets."""
    lose = f"-i cx0 {packets} -j DROP"
    node.exec("sh", "-c", f"iptables -I INPUT {lose}")
    try:
        yield
    finally:
        node.exec("sh", "-c", f"iptables -D INPUT {lose}")


def test_an_apply_measures_the_cable_where_that_is_declared(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    one, other = nodes(2)
    cabled(one, other)
    shell.write("inventory.yml", pair(one, other, measure=True))
    path = f"fabric_path {one.name} @{other.name}"

    with losing(one, LARGE):
        report = shell.json("apply", "inventory.yml", "--role", "fabric", "--yes", status=4)

        results = {each["id"]: each for each in report["results"]}
        assert results[path]["outcome"] == "failed"
        assert results[path]["reason"]["id"] == "fabric-path-broken"
        assert results[path]["reason"]["args"]["reason"]["id"] == "fabric-mtu-too-large"
        assert shell.json("plan", "inventory.yml", "--role", "fabric", status=2)["steps"][0]["id"] == path

    shell.json("apply", "inventory.yml", "--role", "fabric", "--yes")
    kept = json.loads(other.read(f"/var/lib/sparkops/fabric/{one.name}.json"))
    assert kept["gbits"] > 0 and kept["method"] == "tcp"
    assert shell.json("plan", "inventory.yml", "--role", "fabric")["steps"] == []

    # Other links than those that were measured are unproven, and are not measured below an engine.
    argv = b'{"argv": ["serve", "--nnodes", "2"]}'
    one.write("/etc/sparkops/services/large.json", argv)
    unit = b"[Service]\nExecStart=/bin/sh -c 'sleep 600' /etc/sparkops/services/large.json\n"
    one.write("/etc/systemd/system/large.service", unit)
    one.exec("sh", "-c", "systemctl daemon-reload; systemctl start large")
    other.exec("sh", "-c", "ip link set cx0 mtu 1400; ip link set cx1 mtu 1400")
    (step,) = shell.json("apply", "inventory.yml", "--role", "fabric", "--yes")["steps"]
    assert step["id"] == path
    told = shell.json("plan", "inventory.yml", "--role", "fabric")
    assert told["steps"] == []
    (notice,) = [each for each in told["notices"] if each["id"] == "fabric-path-unproven"]
    assert notice["args"]["reason"]["id"] == "fabric-in-use"

    one.exec("systemctl", "stop", "large")
    again = ("apply", "inventory.yml", "--role", "fabric", "--replace", path, "--yes")
    (result,) = shell.json(*again, status=4)["results"]
    assert result["reason"]["args"]["reason"]["id"] == "fabric-mtu-differs"


FLOOD = "from socket import *; s = socket(AF_INET, SOCK_DGRAM)\nwhile True: s.sendto(bytes(60000), ('PEER', 9))"


@pytest.mark.slow
def test_a_link_that_others_use_meanwhile_is_not_called_degraded(
    lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]
) -> None:
    """Measured until it tells something: on a busy machine TCP proves neither."""
    one, other = addressed_pair(shell, nodes)
    peer = addresses(other, "cx0")[0].partition("/")[0]

    def found() -> str | None:
        told = shell.json("fabric", "check", "--seconds", "1", status=None)["figures"][0]
        return str(told["reason"]["id"]) if told["reason"] else None

    with losing(other, SOME):
        until(lambda: found() == "fabric-link-degraded", seconds=180)
        one.exec("systemd-run", "--unit", "flood", "python3", "-c", FLOOD.replace("PEER", peer))
        try:
            until(lambda: found() == "fabric-link-shared", seconds=180)
        finally:
            one.exec("systemctl", "stop", "flood")


def test_discover_reads_only_and_guesses_nothing(lab: Lab, shell: Shell, nodes: Callable[[int], list[Node]]) -> None:
    """The lab's nodes have no ConnectX-7: there is nothing to propose but the nodes themselves."""
    one, other = nodes(2)
    told = shell.json("discover", one.name, other.name)
    assert [each["id"] for each in told["notes"]] == ["discover-not-connected"] * 2
    assert told["inventory"] == {"nodes": {one.name: {"host": one.name}, other.name: {"host": other.name}}}
    assert not one.exists("/var/lib/sparkops")
