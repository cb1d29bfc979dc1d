"""Facts of the network interfaces, out of `ip -j -d address` and /sys/class/net. RDMA and cables are the fabric's.

All of it within time limits: a driver that holds the kernel's network lock (RTNL) makes `ip` and reads below
/sys/class/net wait for ever (MiaAI-Lab pull request 157).
"""

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from sparkops.core.deadline import DeadlineExceeded, within
from sparkops.worker.calls import Unknown
from sparkops.worker.facts.system import text
from sparkops.worker.system import processes
from sparkops.worker.system.root import at

LIMIT = 10.0
"""Seconds for `ip`, and for all reads below /sys together."""
ANCESTORS = 16
"""Processes above the worker in which its SSH session is looked for."""
_Answer = TypeVar("_Answer")


def network(root: str) -> dict[str, Any]:
    """`interfaces` by name, all their `addresses` bare, and the `owners` of those.

    `default_interface` is that of the IPv4 default route, `session_interface` that of this session, `management`
    interface and address over which the node is managed; None each where there is none.
    """
    interfaces = parse_addresses(processes.output(["ip", "-j", "-d", "address"], timeout=LIMIT))
    in_time(lambda: _links(root, interfaces))
    addresses = sorted(each.partition("/")[0] for found in interfaces.values() for each in found["addresses"])
    default = default_of(text(root, "/proc/net/route") or "")
    session = interface_of(interfaces, session_address(root))
    return {
        "interfaces": interfaces,
        "addresses": addresses,
        "owners": {each.partition("/")[0]: name for name, found in interfaces.items() for each in found["addresses"]},
        "default_interface": default,
        "session_interface": session,
        "management": management_of(interfaces, session, session_address(root), default),
    }


def in_time(look: Callable[[], _Answer]) -> _Answer:
    """What `look` finds. Raises Unknown where the kernel does not answer within LIMIT."""
    try:
        return within(LIMIT, look)
    except DeadlineExceeded:
        raise Unknown.of("network-state-late", seconds=LIMIT) from None


def _links(root: str, interfaces: dict[str, dict[str, object]]) -> None:
    for name, each in interfaces.items():
        each["speed_mbps"] = number(root, f"/sys/class/net/{name}/speed")
        each["carrier"] = number(root, f"/sys/class/net/{name}/carrier") == 1


def parse_addresses(said: str) -> dict[str, dict[str, Any]]:
    """Interfaces without loopback; addresses as `192.168.1.2/24`, IPv6 link-local ones left out.

    `type` is ether, none (a tunnel) and the like; `kind` bond, vlan, bridge, veth and so on, None for hardware;
    `master` the bond or bridge that it belongs to, `below` the interface that a VLAN stands on (of a
    veth pair `ip` names the other end there).
    """
    try:
        links = json.loads(said)
    except ValueError:
        raise Unknown.of("program-output-invalid", program="ip") from None
    found = {}
    for link in links:
        if link.get("link_type") == "loopback" or "ifname" not in link:
            continue
        addresses = [each for each in link.get("addr_info") or [] if each.get("scope") != "link"]
        kind = (link.get("linkinfo") or {}).get("info_kind")
        found[link["ifname"]] = {
            "addresses": [f"{each['local']}/{each['prefixlen']}" for each in addresses if "local" in each],
            "mtu": link.get("mtu"),
            "mac": link.get("address"),
            "state": link.get("operstate"),
            "type": link.get("link_type"),
            "kind": kind,
            "master": link.get("master"),
            "below": None if kind == "veth" else link.get("link"),
        }
    return found


def default_of(route: str) -> str | None:
    """The interface of the default route with the lowest metric in /proc/net/route."""
    rows = [line.split() for line in route.splitlines()[1:]]
    defaults = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"]
    return min(defaults)[1] if defaults else None


def session_address(root: str) -> str | None:
    """This node's address of the SSH session that the worker runs in; None where it runs in none.

    sshd puts it in SSH_CONNECTION, which sudo takes out: it is still in the environment of a process above.
    """
    pid = os.getpid()
    for _ in range(ANCESTORS):
        with contextlib.suppress(OSError), open(at(root, f"/proc/{pid}/environ"), "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(b"SSH_CONNECTION="):
                    words = entry.partition(b"=")[2].split()
                    return words[2].decode(errors="replace").partition("%")[0] if len(words) == 4 else None
        stat = text(root, f"/proc/{pid}/stat")
        pid = int(stat.rpartition(")")[2].split()[1]) if stat else 0
        if pid <= 1:
            return None
    return None


def interface_of(interfaces: dict[str, dict[str, Any]], address: str | None) -> str | None:
    for name, each in interfaces.items() if address else ():
        if any(found.partition("/")[0] == address for found in each["addresses"]):
            return name
    return None


def management_of(
    interfaces: dict[str, dict[str, Any]], session: str | None, address: str | None, default: str | None
) -> dict[str, object]:
    """The interface of the session, unless that is a tunnel or unknown, else that of the default route; its address."""
    if session is not None and interfaces[session]["type"] == "ether":
        return {"interface": session, "address": address}
    addresses = interfaces.get(default or "", {}).get("addresses", [])
    plain = [each.partition("/")[0] for each in addresses if ":" not in each]
    return {"interface": default, "address": plain[0] if plain else None}


def neighbours() -> dict[str, list[str]]:
    """The MAC addresses that the kernel has learnt, by interface. Raises Unknown."""
    said = processes.output(["ip", "-j", "neigh"], timeout=LIMIT)
    try:
        found = json.loads(said or "[]")
    except ValueError:
        raise Unknown.of("program-output-invalid", program="ip") from None
    learnt: dict[str, set[str]] = {}
    for each in found:
        if each.get("dev") and each.get("lladdr") and "FAILED" not in (each.get("state") or ()):
            learnt.setdefault(each["dev"], set()).add(each["lladdr"].lower())
    return {name: sorted(macs) for name, macs in learnt.items()}


def number(root: str, path: str) -> int | None:
    """A number below /sys, None where the kernel has none: EINVAL for the speed of a link that is down, or -1."""
    with contextlib.suppress(OSError, ValueError):
        value = int(text(root, path) or "")
        return value if value >= 0 else None
    return None
