"""Many names for a few fresh machines, with a delay on the way if asked; what their sshd saw is counted there.

Each name is a host of its own to whoever connects, with folders of its own on the machine that it stands for. It must
not know which tool connects.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import Machine, machine, made_key

MACHINES = 3
KEY = "id"
WORK = "/var/tmp/bench"
"""Folder on the machines in which each name has the folder that is managed."""
STATE = "/var/lib/bench"
"""Folder on the machines in which each name has its state folder."""


@dataclass(frozen=True)
class Host:
    """One name, the port of 127.0.0.1 where it is reached and the machine that it stands for."""

    name: str
    port: int
    node: Machine


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
def fresh(folder: Path) -> Iterator[list[Machine]]:
    """Machines that nobody else uses, their files and the key KEY that logs in as root in a `folder`."""
    with ExitStack() as ending:
        key = made_key(folder / KEY)
        nodes = [ending.enter_context(machine(f"machine-{n}", folder / str(n), key)) for n in range(MACHINES)]
        for node in nodes:
            node.exec("mkdir", "-p", WORK, STATE)
        yield nodes


@contextmanager
def hosts(nodes: Sequence[Machine], size: int, delay: int, folder: Path) -> Iterator[list[Host]]:
    """`size` names, with `ssh_config` and `known_hosts` in `folder`; each round trip takes `delay` ms more."""
    with _ways([nodes[n % len(nodes)] for n in range(size)], delay) as ports:
        fleet = [Host(f"host-{n:03}", port, nodes[n % len(nodes)]) for n, port in enumerate(ports)]
        known = "".join(f"{host.name},[127.0.0.1]:{host.port} {host.node.host_key}\n" for host in fleet)
        (folder / "known_hosts").write_text(known)
        common = (
            f"  User root\n  IdentityFile {folder / KEY}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {folder / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        )
        (folder / "ssh_config").write_text(
            "".join(f"Host {host.name}\n  HostName 127.0.0.1\n  Port {host.port}\n{common}" for host in fleet)
        )
        yield fleet


@contextmanager
def _ways(nodes: Sequence[Machine], delay: int) -> Iterator[list[int]]:
    """A port for each of `nodes`: its own, or one of the delaying proxy."""
    if not delay:
        yield [node.port for node in nodes]
        return
    argv = [sys.executable, "-m", "bench.delay", str(delay), *(str(node.port) for node in nodes)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield json.loads(proxy.stdout.readline())
        finally:
            proxy.terminate()


class Watch:
    """Counts on the machines since it was made."""

    def __init__(self, nodes: Sequence[Machine]) -> None:
        self.nodes = nodes
        self.lines = {node.name: len(node.log()) for node in nodes}
        self.own = {node.name: -node.last_pid() + node.last_pid() for node in nodes}
        self.first = {node.name: node.last_pid() for node in nodes}

    def counts(self) -> Counts:
        """What was seen on all machines together; our own look at them is taken off."""
        processes = sum(node.last_pid() - self.first[node.name] - self.own[node.name] for node in self.nodes)
        lines = [line for node in self.nodes for line in node.log()[self.lines[node.name] :]]

        def seen(text: str) -> int:
            return sum(text in line for line in lines)

        return Counts(
            seen("Accepted publickey"),
            seen("Starting session: command"),
            seen("Starting session: subsystem"),
            processes,
        )
