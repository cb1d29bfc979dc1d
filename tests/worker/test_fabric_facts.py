"""Facts of the fabric on a tree that is modelled on public listings, and networks that do not answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sparkops.worker.calls import Unknown
from sparkops.worker.facts import fabric, network
from sparkops.worker.requests import facts
from sparkops.worker.requests.measure import counted
from tests.errors import fails
from tests.worker import sparks


def test_a_cable_is_two_interfaces_and_two_rdma_devices(tmp_path: Path) -> None:
    sparks.spark(tmp_path)

    found = fabric.fabric(str(tmp_path), sparks.interfaces())

    assert found["ports"] == {
        "p0": ["enp1s0f0np0", "enP2p1s0f0np0"],
        "p1": ["enp1s0f1np1", "enP2p1s0f1np1"],
    }
    assert found["cabled"] == ["p0"]
    assert found["active"] == ["rocep1s0f0", "roceP2p1s0f0"], "the twins of the port with a link, and no other"
    assert found["active_on"] == {"p0": found["active"], "p1": []}


def test_a_rail_has_its_pcie_link_its_firmware_and_its_counters(tmp_path: Path) -> None:
    sparks.spark(tmp_path)

    rail = fabric.fabric(str(tmp_path), sparks.interfaces())["rails"]["enP2p1s0f0np0"]

    assert (rail["pci"], rail["rdma"], rail["rdma_state"]) == ("0002:01:00.0", "roceP2p1s0f0", "ACTIVE")
    assert (rail["pcie_gts"], rail["pcie_lanes"]) == (32.0, 4)
    assert (rail["firmware"], rail["psid"], rail["chip"]) == ("28.45.4028", "NVD0000000087", "3c6d:6603:00aa:bbcc")
    assert rail["counters"]["out_of_sequence"] == 17
    assert rail["counters"]["rnr_nak_retry_err"] is None, "a counter that this driver lacks is not zero"
    assert (rail["speed_mbps"], rail["carrier"], rail["mtu"]) == (200000, True, 1500)


def test_the_gid_table_has_its_real_indices(tmp_path: Path) -> None:
    sparks.spark(tmp_path)

    gids = fabric.fabric(str(tmp_path), sparks.interfaces())["rails"]["enp1s0f0np0"]["gids"]

    assert [(each["index"], each["type"], each["address"]) for each in gids] == [
        (0, "IB/RoCE v1", None),
        (3, "RoCE v2", "192.168.100.10"),
    ]


def test_twins_in_one_subnet_are_told(tmp_path: Path) -> None:
    sparks.spark(tmp_path)
    one = {"enp1s0f0np0": ["192.168.100.1/24"], "enP2p1s0f0np0": ["192.168.100.2/24"]}
    two = {"enp1s0f0np0": ["192.168.100.1/24"], "enP2p1s0f0np0": ["192.168.101.1/24"]}

    share = fabric.fabric(str(tmp_path), sparks.interfaces(one))["twins_share"]

    assert share == ["enp1s0f0np0 and enP2p1s0f0np0: 192.168.100.0/24"]
    assert fabric.fabric(str(tmp_path), sparks.interfaces(two))["twins_share"] == []


def test_the_function_tells_the_port_where_the_driver_does_not(tmp_path: Path) -> None:
    sparks.spark(tmp_path)
    for name in sparks.RAILS:
        (tmp_path / "sys/class/net" / name / "phys_port_name").unlink()

    found = fabric.fabric(str(tmp_path), sparks.interfaces())

    assert found["ports"]["p1"] == ["enp1s0f1np1", "enP2p1s0f1np1"]


def test_a_node_without_the_card_says_so(tmp_path: Path) -> None:
    found = fabric.fabric(str(tmp_path), {"eth0": {"addresses": []}})
    assert (found["present"], found["active"]) == (False, [])


def test_a_network_that_does_not_answer_is_unknown_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to is read for ever, as /sys is under a wedged RTNL."""
    sparks.spark(tmp_path)
    attribute = tmp_path / "sys/class/net/enp1s0f0np0/phys_port_name"
    attribute.unlink()
    os.mkfifo(attribute)
    monkeypatch.setattr(network, "LIMIT", 0.2)

    with fails("network-state-late", Unknown):
        fabric.fabric(str(tmp_path), sparks.interfaces())


def test_a_hanging_ip_is_unknown_and_holds_no_other_group_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/ip"
    sparks.put(tmp_path, "bin/ip", "#!/bin/sh\nexec sleep 60")
    program.chmod(0o755)
    sparks.put(tmp_path, "proc/meminfo", "MemTotal: 1 kB")
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(network, "LIMIT", 0.2)

    found = facts.observe({"root": str(tmp_path), "groups": ["network", "fabric", "memory"]})

    assert found["network"]["$unknown"]["id"] == found["fabric"]["$unknown"]["id"] == "program-timeout"
    assert found["memory"]["total_bytes"] == 1024


SAID = json.dumps(
    [
        {"ifname": "lo", "link_type": "loopback"},
        {
            "ifname": "enP7s7",
            "link_type": "ether",
            "addr_info": [{"local": "192.168.1.11", "prefixlen": 24, "scope": "global"}],
        },
        {
            "ifname": "tailscale0",
            "link_type": "none",
            "linkinfo": {"info_kind": "tun"},
            "addr_info": [{"local": "100.64.0.7", "prefixlen": 32, "scope": "global"}],
        },
        {"ifname": "bond0", "link_type": "ether", "linkinfo": {"info_kind": "bond"}},
        {"ifname": "enp1s0f0np0", "link_type": "ether", "master": "bond0"},
        {"ifname": "fast.7", "link_type": "ether", "link": "enp1s0f1np1", "linkinfo": {"info_kind": "vlan"}},
    ]
)


def test_bonds_and_vlans_are_told() -> None:
    found = network.parse_addresses(SAID)
    assert found["enp1s0f0np0"]["master"] == "bond0" and found["bond0"]["kind"] == "bond"
    assert (found["fast.7"]["kind"], found["fast.7"]["below"]) == ("vlan", "enp1s0f1np1")
    pair = json.dumps([{"ifname": "cx1", "link_type": "ether", "link": "cx0", "linkinfo": {"info_kind": "veth"}}])
    assert network.parse_addresses(pair)["cx1"]["below"] is None, "the other end of a pair is no interface below"


def test_management_is_the_session_unless_that_is_a_tunnel() -> None:
    found = network.parse_addresses(SAID)
    wired = {"interface": "enP7s7", "address": "192.168.1.11"}
    assert network.management_of(found, "enP7s7", "192.168.1.11", None) == wired
    assert network.management_of(found, "tailscale0", "100.64.0.7", "enP7s7") == wired
    assert network.management_of(found, None, None, "enP7s7") == wired
    assert network.management_of(found, None, None, None) == {"interface": None, "address": None}


def test_the_session_is_found_above_sudo(tmp_path: Path) -> None:
    own = os.getpid()
    sparks.put(tmp_path, f"proc/{own}/stat", f"{own} (python3) S 77 1 1 0")
    sparks.put(tmp_path, f"proc/{own}/environ", "HOME=/root\0")
    sparks.put(tmp_path, "proc/77/stat", "77 (sudo) S 70 1 1 0")
    (tmp_path / "proc/77/environ").write_bytes(b"A=1\0SSH_CONNECTION=192.168.1.2 50000 192.168.1.11 22\0")
    assert network.session_address(str(tmp_path)) == "192.168.1.11"

    (tmp_path / "proc/77/environ").unlink()
    sparks.put(tmp_path, "proc/70/stat", "70 (init) S 1 1 1 0")
    assert network.session_address(str(tmp_path)) is None


def test_the_bytes_of_a_link_are_counted_as_each_driver_has_them(tmp_path: Path) -> None:
    ethernet = "sys/class/net/enp1s0f0np0/statistics"
    rdma = "sys/class/infiniband/rocep1s0f0/ports/1/counters"
    counters = {f"{ethernet}/tx_bytes": 5, f"{ethernet}/rx_bytes": 6, f"{rdma}/port_xmit_data": 7}
    for path, value in counters.items():
        sparks.put(tmp_path, path, f"{value}\n")
    rail = {"rdma": "rocep1s0f0", "counters": {"packet_seq_err": 2, "out_of_buffer": None}}
    assert counted("enp1s0f0np0", rail, str(tmp_path)) == {
        "errors": {"packet_seq_err": 2},
        "sent": [5, 4 * 7],
        "received": [6, 0],
    }
    assert counted(None, {}, str(tmp_path)) == {"errors": {}, "sent": [0, 0], "received": [0, 0]}
