"""The node's facts, in groups that are each cheap, independent and asked for by name.

A group is a mapping of plain values. What can't be found out stands in it as `{"$unknown": Reason}`, as a
single value or as the whole group; what is known not to be there is None, or `present: false` with a text in `error` or
a Reason in `reason`. It must not judge: what a value should be is the controller's business.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkops.core.messages import UNKNOWN, unknown_of
from sparkops.core.request_messages import FactsRequest
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.facts import engine, fabric, gpu, gpu_users, keys, network, packages, pci, system

THREADS = 12

_Group = Callable[["Node", Mapping[str, object]], "dict[str, Any]"]


class Node:
    """One look at this node: each group is found out once, whoever needs it, and groups may need each other.

    `root` is where the node's file system stands; other than `/` in tests only.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._answers: dict[str, dict[str, object] | Unknown] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def group(self, name: str, args: Mapping[str, object] | None = None) -> dict[str, Any]:
        """A group's mapping. Raises Unknown when it could not be found out, Refused for a name that is no group."""
        if name not in GROUPS:
            raise Refused.of("facts-group-unknown", group=name, groups=", ".join(sorted(GROUPS)))
        key = f"{name} {sorted((args or {}).items())!r}"
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._answers:
                self._answers[key] = self._look(name, args or {})
            answer = self._answers[key]
        if isinstance(answer, Unknown):
            raise answer
        return answer

    def _look(self, name: str, args: Mapping[str, object]) -> dict[str, object] | Unknown:
        try:
            return GROUPS[name](self, args)
        except Exception as error:  # noqa: BLE001 - a defect of one group makes that group unknown, not the others
            return unknown_of(error)


def _fabric(node: Node, args: Mapping[str, object]) -> dict[str, object]:
    found = fabric.fabric(node.root, node.group("network")["interfaces"])
    learnt = network.neighbours() if found["rails"] else {}
    for name, rail in found["rails"].items():
        rail["neighbours"] = learnt.get(name, [])
    return found


def _packages(node: Node, args: Mapping[str, object]) -> dict[str, object]:
    patterns = args.get("patterns")
    return packages.packages(node.root, patterns if isinstance(patterns, list) else list(packages.PLATFORM))


GROUPS: dict[str, _Group] = {
    "os": lambda node, args: system.system(node.root),
    "memory": lambda node, args: system.memory(node.root),
    "cpu": lambda node, args: system.cpu(node.root),
    "disk": lambda node, args: system.disk(node.root, str(args.get("path", "/"))),
    "uptime": lambda node, args: system.uptime(node.root),
    "desktop": lambda node, args: system.desktop(node.root),
    "firmware": lambda node, args: system.firmware(node.root, devices=bool(args.get("devices"))),
    "network": lambda node, args: network.network(node.root),
    "fabric": _fabric,
    "gpu": lambda node, args: gpu.gpu(node.root),
    "gpu_users": lambda node, args: gpu_users.gpu_users(node.root),
    "pci": lambda node, args: pci.pci(node.root),
    "keys": lambda node, args: keys.keys(node.root),
    "cdi": lambda node, args: gpu.cdi(node.root, node.group("gpu").get("driver_version")),
    "docker": lambda node, args: engine.docker(node.root),
    "packages": _packages,
    "group_keys": lambda node, args: keys.of_groups(node.root),
    "reboot": lambda node, args: packages.reboot(node.root, node.group("gpu"), node.group("packages")["installed"]),
}


def gather(
    node: Node, wanted: Mapping[str, tuple[str, Mapping[str, object]]]
) -> dict[str, dict[str, object] | Unknown]:
    """Several groups side by side: `wanted` maps a key of the caller's to (group, args)."""

    def one(group: str, args: Mapping[str, object]) -> dict[str, object] | Unknown:
        try:
            return node.group(group, args)
        except (Unknown, Refused) as error:
            return unknown_of(error)

    if not wanted:
        return {}
    with ThreadPoolExecutor(min(THREADS, len(wanted))) as pool:
        running = {key: pool.submit(one, *each) for key, each in wanted.items()}
        return {key: each.result() for key, each in running.items()}


def observe(ask: FactsRequest) -> dict[str, object]:
    """Facts as `{group: {...}}`."""
    args = ask.get("args") or {}
    names = [str(name) for name in ask.get("groups") or GROUPS]
    found = gather(Node(str(ask.get("root", "/"))), {name: (name, args.get(name) or {}) for name in names})
    return {name: {UNKNOWN: each.reason} if isinstance(each, Unknown) else each for name, each in found.items()}
