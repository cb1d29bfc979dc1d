"""What netplan's files say of interfaces, read as netplan merges them (netplan(5)); and the file of our own.

YAML is read by a child, Python with the modules of the system: netplan brings PyYAML. The child tells only addresses,
names and MTUs; passwords of Wi-Fi stay there.
"""

import fnmatch
import ipaddress
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sparkops.core.messages import Reason, reason
from sparkops.worker.calls import Unknown
from sparkops.worker.system import processes
from sparkops.worker.system.root import at

FOLDERS = ("/lib/netplan", "/etc/netplan", "/run/netplan")
"""The later one's file of a name takes the place of an earlier one's."""
OURS = "60-sparkops-fabric.yaml"
TRIAL = "# A trial of sparkops"
"""The first line of a file below /run that is tried; it is no declaration yet."""
READER = """
import glob, json, os, sys, yaml
found = {}
for folder in sys.argv[2:]:
    for path in sorted(glob.glob(folder + "/*.yaml")):
        with open(path) as file:
            text = file.read()
        if text.startswith(sys.argv[1]):
            continue
        network = ((yaml.safe_load(text) or {}).get("network") or {})
        kept = {"path": path, "entries": {}, "stacked": {}, "others": []}
        for name, entry in (network.get("ethernets") or {}).items():
            entry = entry or {}
            keys = ("addresses", "mtu", "dhcp4", "match", "set-name")
            kept["entries"][str(name)] = {key: entry[key] for key in keys if key in entry}
        for sort in ("bonds", "bridges", "vlans", "vrfs"):
            for name, entry in (network.get(sort) or {}).items():
                below = list((entry or {}).get("interfaces") or []) + [(entry or {}).get("link")]
                kept["stacked"][str(name)] = [str(each) for each in below if each]
        kept["others"] = [key for key in network if key not in ("version", "renderer", "ethernets")]
        found[os.path.basename(path)] = kept
print(json.dumps(found))
"""

Files = Mapping[str, Mapping[str, Any]]


def files(root: str) -> Files:
    """What each file says, by its name, in the order in which they are merged. Raises Unknown."""
    folders = [at(root, folder) for folder in FOLDERS]
    status, said, wrong = processes.ask([sys.executable, "-I", "-c", READER, TRIAL, *folders], timeout=20)
    if status != 0:
        raise Unknown.of("netplan-unreadable", text=wrong.strip().rpartition("\n")[2][-200:])
    found = json.loads(said)
    return {name: found[name] for name in sorted(found)}


def entries(found: Files, interface: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The entries that mean exactly this interface: file, name of the entry, entry."""
    for file, content in found.items():
        for name, entry in content["entries"].items():
            match = entry.get("match")
            if (name == interface if match is None else match == {"name": interface}) and "set-name" not in entry:
                yield file, name, entry


def merged(found: Files, interface: str) -> dict[str, Any]:
    """What netplan makes of an interface: lists of several files are joined, of other values the last counts."""
    whole: dict[str, Any] = {"addresses": []}
    for _, _, entry in entries(found, interface):
        whole["addresses"] += [_plain(each) for each in entry.get("addresses") or []]
        whole.update({key: entry[key] for key in ("mtu", "dhcp4") if key in entry})
    return whole


def faults(found: Files, interface: str, mac: str | None) -> Iterator[Reason]:
    """Why sparkops must not configure this interface: what netplan says of it otherwise than by its exact name."""
    for file, content in found.items():
        for name, entry in content["entries"].items():
            if not _may_mean(name, entry, interface, mac):
                continue
            if "set-name" in entry:
                yield reason("fabric-interface-renamed", file=file, entry=name, interface=interface)
            elif entry.get("match") not in (None, {"name": interface}):
                yield reason("fabric-interface-matched", file=file, entry=name, interface=interface)
        for name, below in content["stacked"].items():
            if interface in below:
                yield reason("fabric-interface-stacked", interface=interface, upper=name)


def _may_mean(name: str, entry: Mapping[str, object], interface: str, mac: str | None) -> bool:
    match = entry.get("match")
    if not isinstance(match, Mapping):
        return name == interface or entry.get("set-name") == interface
    globs = match.get("name", "*")
    named = any(fnmatch.fnmatchcase(interface, str(each)) for each in (globs if isinstance(globs, list) else [globs]))
    other_mac = "macaddress" in match and str(match["macaddress"]).lower() != (mac or "").lower()
    drivers = match.get("driver", "mlx5_core")
    drivers = drivers if isinstance(drivers, list) else [drivers]
    driven = any(fnmatch.fnmatchcase("mlx5_core", str(each)) for each in drivers)
    return (named and driven and not other_mac) or entry.get("set-name") == interface


def others(found: Files, interface: str, wanted: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The files of somebody else that give an interface other addresses than those: file, these addresses."""
    keep = set(wanted)
    for file, _, entry in entries(found, interface):
        given = [_plain(each) for each in entry.get("addresses") or []]
        if file != OURS and (extra := [each for each in given if each not in keep]):
            yield file, extra


def only_of(found: Files, file: str, interfaces: Iterable[str]) -> bool:
    """Whether a file says nothing but of these interfaces, so that it can be set aside as a whole."""
    content, names = found[file], set(interfaces)
    mine = {name for each in names for other, name, _ in entries(found, each) if other == file}
    return not content["stacked"] and not content["others"] and set(content["entries"]) <= mine


def text(addresses: Mapping[str, str], mtu: int | None, first: str = "# Made by sparkops") -> str:
    """Our file: each interface with its address."""
    lines = [f"{first}; the next apply replaces changes.", "network:", "  version: 2", "  ethernets:"]
    for interface, address in sorted(addresses.items()):
        lines += [f"    {json.dumps(interface)}:", "      dhcp4: false", "      dhcp6: false", "      optional: true"]
        lines += [f"      addresses: [{json.dumps(address)}]", *([f"      mtu: {mtu}"] if mtu else [])]
    return "\n".join(lines) + "\n"


def _plain(address: object) -> str:
    """An address as `192.168.1.2/24`; netplan also takes it as a mapping with options."""
    text = str(next(iter(address)) if isinstance(address, Mapping) else address)
    try:
        return str(ipaddress.ip_interface(text))
    except ValueError:
        return text
