"""Many names for a few fresh nodes of the lab, with a delay on the way if asked; what their sshd saw is counted there.

Each name is a host of its own to whoever connects, with folders of its own on the node that it stands for. It must not
know which tool connects.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.node import Node

MACHINES = 3
WORK = "/var/tmp/bench"
"""Folder on the nodes in which each name has the folder that is managed."""
STATE = "/var/lib/bench"
"""Folder on the nodes in which each name has its state folder."""


@dataclass(frozen=True)
class Host:
    """One name, where it is reached and the machine that it stands for."""

    name: str
    address: str
    port: int
    node: Node


@dataclass(frozen=True)
class Counts:
    """What happened on the nodes: accepted connections, execs, SFTP sessions, processes (with threads) started."""

    connections: int = 0
    execs: int = 0
    sftp: int = 0
    processes: int = 0

    def per(self, hosts: int) -> dict[str, float]:
        """The same, per host."""
        return {name: round(count / hosts, 1) for name, count in asdict(self).items()}


@contextmanager
def fresh(lab: Lab) -> Iterator[list[Node]]:
    """Nodes that nobody else uses; their sshd tells of execs, which it does only at LogLevel VERBOSE."""
    with ExitStack() as ending:
        nodes = []
        for _ in range(MACHINES):
            node = lab.add_node()
            ending.callback(lab.remove_node, node)
            node.write("/etc/ssh/sshd_config.d/00-verbose.conf", b"LogLevel VERBOSE\n")
            node.exec("systemctl", "reload", "ssh")
            node.exec("mkdir", "-p", WORK, STATE)
            nodes.append(node)
        yield nodes


@contextmanager
def hosts(lab: Lab, nodes: Sequence[Node], size: int, delay: int, folder: Path) -> Iterator[list[Host]]:
    """`size` names, with `ssh_config` and `known_hosts` in `folder`; each round trip takes `delay` ms more."""
    with _ways([nodes[n % len(nodes)] for n in range(size)], delay) as ways:
        fleet = [Host(f"host-{n:03}", address, port, nodes[n % len(nodes)]) for n, (address, port) in enumerate(ways)]
        known = "".join(
            f"{host.name},{host.node.address},[{host.address}]:{host.port} {host.node.host_key}\n" for host in fleet
        )
        (folder / "known_hosts").write_text(known)
        common = (
            f"  User root\n  IdentityFile {lab.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        )
        (folder / "ssh_config").write_text(
            "".join(f"Host {host.name}\n  HostName {host.address}\n  Port {host.port}\n{common}" for host in fleet)
        )
        yield fleet


@contextmanager
def _ways(nodes: Sequence[Node], delay: int) -> Iterator[list[tuple[str, int]]]:
    """Address and port for each of `nodes`: its own, or a port of the delaying proxy."""
    if not delay:
        yield [(node.address, 22) for node in nodes]
        return
    argv = [sys.executable, "-m", "bench.delay", str(delay), *(node.address for node in nodes)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield [("127.0.0.1", port) for port in json.loads(proxy.stdout.readline())]
        finally:
            proxy.terminate()


class Watch:
    """Counts on the nodes since it was made."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.since = {node.name: node.text("date", "+%s") for node in nodes}
        self.lines = {node.name: len(self._log(node)) for node in nodes}
        self.own = {node.name: -_last_pid(node) + _last_pid(node) for node in nodes}
        self.first = {node.name: _last_pid(node) for node in nodes}

    def counts(self) -> Counts:
        """What was seen on all nodes together; our own look at them is taken off."""
        processes = sum(_last_pid(node) - self.first[node.name] - self.own[node.name] for node in self.nodes)
        lines = [line for node in self.nodes for line in self._log(node)[self.lines[node.name] :]]

        def seen(text: str) -> int:
            return sum(text in line for line in lines)

        return Counts(
            seen("Accepted publickey"),
            seen("Starting session: command"),
            seen("Starting session: subsystem"),
            processes,
        )

    def _log(self, node: Node) -> list[str]:
        since = f"@{self.since[node.name]}"
        return node.text("journalctl", "-u", "ssh", "-o", "cat", "--since", since).splitlines()


def _last_pid(node: Node) -> int:
    """The last process id that the node gave away, which is also how many it gave away."""
    return int(node.text("cat", "/proc/loadavg").split()[-1])
