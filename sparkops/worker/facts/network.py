"""Facts of the network interfaces, out of `ip -j address` and /sys/class/net. Links and RDMA are the fabric's."""

import contextlib
import json
from typing import Any

from sparkops.worker.calls import Unknown
from sparkops.worker.facts.system import text
from sparkops.worker.system import processes


def network(root: str) -> dict[str, Any]:
    """`interfaces` by name, all their `addresses` bare, and the interface of the IPv4 default route or None."""
    status, said, wrong = processes.ask(["ip", "-j", "address"], timeout=10)
    if status != 0:
        raise Unknown.of("program-failed", program="ip", status=status, text=wrong.strip()[-200:])
    interfaces = parse_addresses(said)
    for name, each in interfaces.items():
        each["speed_mbps"] = _number(root, f"/sys/class/net/{name}/speed")
        each["carrier"] = _number(root, f"/sys/class/net/{name}/carrier") == 1
    addresses = sorted(each.partition("/")[0] for found in interfaces.values() for each in found["addresses"])
    return {
        "interfaces": interfaces,
        "addresses": addresses,
        "default_interface": default_of(text(root, "/proc/net/route") or ""),
    }


def parse_addresses(said: str) -> dict[str, dict[str, Any]]:
    """Interfaces without loopback; addresses as `192.168.1.2/24`, IPv6 link-local ones left out."""
    try:
        links = json.loads(said)
    except ValueError:
        raise Unknown.of("program-output-invalid", program="ip") from None
    found = {}
    for link in links:
        if link.get("link_type") == "loopback" or "ifname" not in link:
            continue
        addresses = [each for each in link.get("addr_info") or [] if each.get("scope") != "link"]
        found[link["ifname"]] = {
            "addresses": [f"{each['local']}/{each['prefixlen']}" for each in addresses if "local" in each],
            "mtu": link.get("mtu"),
            "mac": link.get("address"),
            "state": link.get("operstate"),
        }
    return found


def default_of(route: str) -> str | None:
    """The interface of the default route with the lowest metric in /proc/net/route."""
    rows = [line.split() for line in route.splitlines()[1:]]
    defaults = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"]
    return min(defaults)[1] if defaults else None


def _number(root: str, path: str) -> int | None:
    # The kernel answers EINVAL for the speed of a link that is down, and -1 for one that has none.
    with contextlib.suppress(OSError, ValueError):
        value = int(text(root, path) or "")
        return value if value >= 0 else None
    return None
