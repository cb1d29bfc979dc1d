"""Facts of the fabric: ConnectX-7 functions, ports, RDMA devices, PCIe and counters, all out of /sys.

A cable of a DGX Spark ends in a port that two PCIe functions share, its twins, each with an interface and an RDMA
device of its own and about 100 Gb/s (NVIDIA's playbooks; luisefigueroa/pulsar-gb10-vllm-stack). Nothing is judged here.
"""

import contextlib
import ipaddress
import os
import re
from typing import Any

from sparkops.programs.launch.rdma import port_of
from sparkops.worker.facts.network import in_time, number
from sparkops.worker.facts.system import text
from sparkops.worker.system.root import at

VENDOR, DEVICES = "0x15b3", ("0x1021",)
"""PCI ids of a ConnectX-7 function (pci.ids)."""


def fabric(root: str, interfaces: dict[str, dict[str, object]]) -> dict[str, Any]:
    """The ConnectX-7 interfaces of a node, out of the facts of its interfaces.

    rails: by interface name; see `_rail`. ports: `p0`, `p1` to their interfaces, the twins of a port in the order of
    their PCI addresses. active: the RDMA devices whose port is ACTIVE, in that order; active_on: those by port.
    twins_share: pairs of twins that have addresses in one subnet, as text.
    """
    rails = in_time(lambda: {name: _rail(root, name) for name in sorted(interfaces) if _is_connectx(root, name)})
    for name, rail in rails.items():
        kept = ("addresses", "mtu", "mac", "state", "carrier", "speed_mbps", "master")
        rail.update({key: interfaces[name].get(key) for key in kept})
    if not rails:
        return {"present": False, "error": "no ConnectX-7 interface", "active": [], "rails": {}, "ports": {}}
    order = sorted(rails, key=lambda name: str(rails[name]["pci"]))
    active = [name for name in order if rails[name]["rdma_state"] == "ACTIVE"]
    ports: dict[str, list[str]] = {}
    for name in order:
        ports.setdefault(str(rails[name]["port"]), []).append(name)
    return {
        "present": True,
        "rails": rails,
        "ports": ports,
        "cabled": [port for port, names in sorted(ports.items()) if any(rails[name]["carrier"] for name in names)],
        "active": [rails[name]["rdma"] for name in active],
        "active_on": {port: [rails[name]["rdma"] for name in names if name in active] for port, names in ports.items()},
        "twins_share": [said for names in ports.values() for said in shared_subnets(names, rails)],
    }


def shared_subnets(names: list[str], rails: dict[str, dict[str, Any]]) -> list[str]:
    """Which interfaces of a port have addresses in one subnet: `A and B: 192.168.100.0/24`."""
    found: dict[str, str] = {}
    said = []
    for name in names:
        for network in dict.fromkeys(str(ipaddress.ip_interface(each).network) for each in rails[name]["addresses"]):
            if network in found:
                said.append(f"{found[network]} and {name}: {network}")
            found.setdefault(network, name)
    return said


def _is_connectx(root: str, name: str) -> bool:
    device = f"/sys/class/net/{name}/device"
    return text(root, f"{device}/vendor") == VENDOR and text(root, f"{device}/device") in DEVICES


def _rail(root: str, name: str) -> dict[str, Any]:
    """One function: PCI address, port, chip, PCIe link (GT/s, lanes), RDMA device with state, GIDs and counters."""
    device = f"/sys/class/net/{name}/device"
    pci = os.path.basename(os.path.realpath(at(root, device)))
    rdma = _first(root, f"{device}/infiniband")
    found = {
        "pci": pci,
        "port": _port(root, name, pci),
        "chip": _quiet(root, f"/sys/class/net/{name}/phys_switch_id"),
        "pcie_gts": _speed(_quiet(root, f"{device}/current_link_speed")),
        "pcie_lanes": number(root, f"{device}/current_link_width"),
        "pcie_max_gts": _speed(_quiet(root, f"{device}/max_link_speed")),
        "pcie_max_lanes": number(root, f"{device}/max_link_width"),
        "rdma": rdma,
        "rdma_state": None,
    }
    if rdma is None:
        return found
    here = f"/sys/class/infiniband/{rdma}"
    state = _quiet(root, f"{here}/ports/1/state")
    return {
        **found,
        "chip": found["chip"] or _quiet(root, f"{here}/sys_image_guid"),
        "rdma_state": state.partition(":")[2].strip() if state else None,
        "link_layer": _quiet(root, f"{here}/ports/1/link_layer"),
        "rate": _quiet(root, f"{here}/ports/1/rate"),
        "firmware": _quiet(root, f"{here}/fw_ver"),
        "psid": _quiet(root, f"{here}/board_id"),
        **port_of(at(root, f"{here}/ports/1")),
    }


def _port(root: str, name: str, pci: str) -> str:
    """p0 or p1: as the driver names it, else by the PCI function."""
    named = _quiet(root, f"/sys/class/net/{name}/phys_port_name")
    return named if named and re.fullmatch(r"p\d", named) else f"p{pci.rpartition('.')[2]}"


def _first(root: str, folder: str) -> str | None:
    with contextlib.suppress(OSError):
        return min(os.listdir(at(root, folder)), default=None)
    return None


def _quiet(root: str, path: str) -> str | None:
    """An attribute's text; None where the driver does not support it (EOPNOTSUPP, EINVAL)."""
    with contextlib.suppress(OSError):
        return (text(root, path) or "").strip() or None
    return None


def _speed(said: str | None) -> float | None:
    """32.0 out of `32.0 GT/s PCIe`."""
    found = re.match(r"([\d.]+) GT/s", said or "")
    return float(found.group(1)) if found else None
