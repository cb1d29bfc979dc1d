"""A DGX Spark's /sys as public listings show it: a ConnectX-7 with two ports, two PCIe functions on each.

Names and numbers follow NVIDIA's playbooks (connect two Sparks, NCCL) and reports of `ibdev2netdev` on GB10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

RAILS = {
    "enp1s0f0np0": ("0000:01:00.0", "rocep1s0f0", "p0"),
    "enp1s0f1np1": ("0000:01:00.1", "rocep1s0f1", "p1"),
    "enP2p1s0f0np0": ("0002:01:00.0", "roceP2p1s0f0", "p0"),
    "enP2p1s0f1np1": ("0002:01:00.1", "roceP2p1s0f1", "p1"),
}
"""Interface → PCI address, RDMA device, port."""
GID = "0000:0000:0000:0000:0000:ffff:c0a8:640a"
"""192.168.100.10 as a RoCE address."""


def put(root: Path, path: str, text: str) -> None:
    """A file below `root`, its folders made."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


def spark(root: Path, cabled: tuple[str, ...] = ("p0",)) -> None:
    """The four functions below `root`, with a link on the cabled ports."""
    for name, (pci, rdma, port) in RAILS.items():
        up = port in cabled
        device = root / "sys/devices" / pci
        for attribute, text in {
            "vendor": "0x15b3",
            "device": "0x1021",
            "current_link_speed": "32.0 GT/s PCIe",
            "current_link_width": "4",
            "max_link_speed": "32.0 GT/s PCIe",
            "max_link_width": "16",
        }.items():
            put(device, attribute, text)
        (device / "infiniband" / rdma).mkdir(parents=True)
        net = root / "sys/class/net" / name
        put(net, "phys_port_name", port)
        put(net, "speed", "200000" if up else "-1")
        put(net, "carrier", "1" if up else "0")
        (net / "device").symlink_to(device)
        _rdma(root / "sys/class/infiniband" / rdma, up)


def _rdma(folder: Path, up: bool) -> None:
    for attribute, text in {
        "fw_ver": "28.45.4028",
        "board_id": "NVD0000000087",
        "sys_image_guid": "3c6d:6603:00aa:bbcc",
        "ports/1/state": "4: ACTIVE" if up else "1: DOWN",
        "ports/1/link_layer": "Ethernet",
        "ports/1/rate": "200 Gb/sec (2X NDR)" if up else "40 Gb/sec (4X QDR)",
        "ports/1/hw_counters/packet_seq_err": "0",
        "ports/1/hw_counters/out_of_sequence": "17",
        "ports/1/gids/0": "fe80:0000:0000:0000:3e6d:66ff:fe00:0001",
        "ports/1/gids/1": "0000:0000:0000:0000:0000:0000:0000:0000",
        "ports/1/gids/2": "0000:0000:0000:0000:0000:0000:0000:0000",
        "ports/1/gids/3": GID if up else "0000:0000:0000:0000:0000:0000:0000:0000",
        "ports/1/gid_attrs/types/0": "IB/RoCE v1",
        "ports/1/gid_attrs/types/3": "RoCE v2",
    }.items():
        put(folder, attribute, text)


def interfaces(addresses: dict[str, list[str]] | None = None, cabled: tuple[str, ...] = ("p0",)) -> dict[str, Any]:
    """The facts of these interfaces, with the given addresses."""
    return {
        name: {
            "addresses": (addresses or {}).get(name, []),
            "mtu": 1500,
            "mac": f"3c:6d:66:00:00:0{number}",
            "state": "UP" if port in cabled else "DOWN",
            "carrier": port in cabled,
            "speed_mbps": 200000 if port in cabled else None,
            "master": None,
        }
        for number, (name, (_, _, port)) in enumerate(RAILS.items())
    }
