"""A no-op check of many nodes against the floor: connect to each and run `python3 -c pass`, with as many threads.

The nodes are many names for three fresh nodes of the lab; each has a state folder of its own. Connections and execs are
counted in the log of the nodes' sshd, not by us; sshd tells of execs only at LogLevel VERBOSE, so these nodes have it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.timing import ratio, side_by_side
from tests.lab.lab import Lab
from tests.lab.node import Node

MACHINES = 3
ROUNDS = 9
RESOURCES = (10, 100)
FLEETS = (1, 10, 50)


def measure() -> dict[str, Any]:
    """For each fleet: medians, the ratio to the floor (at most 1.5 is asked), and counts per node."""
    with Lab.session() as lab, fresh(lab) as nodes, tempfile.TemporaryDirectory() as folder:
        bench = Bench(lab, nodes, Path(folder))
        return {
            "threads": 64,
            "fleets": [bench.fleet(size, RESOURCES[0]) for size in FLEETS],
            "resources": [{"resources": count, **bench.counts(3, count)} for count in RESOURCES],
            "limit": 1.5,
        }


@contextmanager
def fresh(lab: Lab) -> Iterator[list[Node]]:
    """Nodes that nobody else uses, for as long as the benchmark runs."""
    with ExitStack() as ending:
        nodes = []
        for _ in range(MACHINES):
            node = lab.add_node()
            ending.callback(lab.remove_node, node)
            node.write("/etc/ssh/sshd_config.d/00-verbose.conf", b"LogLevel VERBOSE\n")
            node.exec("systemctl", "reload", "ssh")
            nodes.append(node)
        yield nodes


class Bench:
    """One folder with an inventory and an SSH configuration of many names."""

    def __init__(self, lab: Lab, nodes: list[Node], folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.nodes = nodes
        self.environment = {
            **os.environ,
            "SPARKOPS_SSH_CONFIG": str(folder / "ssh_config"),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def prepare(self, size: int, resources: int) -> list[str]:
        """An inventory of `size` names with `resources` files each; returns the names."""
        names = [f"host-{number:03}" for number in range(size)]
        blocks = [
            f"Host {name}\n  HostName {self.nodes[n % len(self.nodes)].address}\n  User root\n"
            f"  IdentityFile {self.lab.key}\n  UserKnownHostsFile {self.lab.known_hosts}\n"
            for n, name in enumerate(names)
        ]
        (self.folder / "ssh_config").write_text("".join(blocks))
        role = self.folder / "roles" / "bench"
        role.mkdir(parents=True, exist_ok=True)
        entries = "".join(
            f"  - file: /var/tmp/bench/{{{{ node.name }}}}/{number}\n    content: 'content {number}'\n"
            for number in range(resources - 1)
        )
        (role / "role.yml").write_text(
            "summary: Files\nscope: node\nresources:\n  - directory: /var/tmp/bench/{{ node.name }}\n" + entries
        )
        nodes = "".join(f"  {name}: {{connection: {{state_dir: /var/lib/bench/{name}}}}}\n" for name in names)
        (self.folder / "inventory.yml").write_text(
            f"version: 1\ncluster: bench\nconnection: {{user: root}}\nroles: [bench]\n"
            f"accept: [{{id: nodes.one-machine, reason: many names for few nodes}}]\nnodes:\n{nodes}"
        )
        for node in self.nodes:
            node.exec("mkdir", "-p", "/var/tmp/bench", "/var/lib/bench")
        return names

    def sparkops(self, *arguments: str) -> None:
        """One run of the command line, as a user's."""
        subprocess.run(
            [sys.executable, "-m", "sparkops", *arguments, "inventory.yml", "--role", "bench"],
            cwd=self.folder,
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=None if arguments == ("drift",) else subprocess.DEVNULL,
        )

    def floor(self, names: list[str]) -> None:
        """A process that connects to every node and runs `python3 -c pass` there, side by side."""
        subprocess.run(
            [sys.executable, "-m", "bench.floor", str(self.folder / "ssh_config"), *names],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def fleet(self, size: int, resources: int) -> dict[str, Any]:
        """The figures of one fleet."""
        names = self.prepare(size, resources)
        self.sparkops("apply")
        figures = side_by_side({"drift": lambda: self.sparkops("drift"), "floor": lambda: self.floor(names)}, ROUNDS)
        return {
            "nodes": size,
            "seconds": figures,
            "ratio": ratio(figures, "drift", "floor"),
            **self.counts(size, resources),
        }

    def counts(self, size: int, resources: int) -> dict[str, Any]:
        """Connections and execs per node of one no-op check, from the nodes' sshd."""
        self.prepare(size, resources)
        self.sparkops("apply")
        marks = {node.name: node.text("date", "+%s").strip() for node in self.nodes}
        before = {node.name: self._log(node, marks[node.name]) for node in self.nodes}
        self.sparkops("drift")
        connections = execs = 0
        for node in self.nodes:
            lines = self._log(node, marks[node.name])[len(before[node.name]) :]
            connections += sum("Accepted publickey" in line for line in lines)
            execs += sum("Starting session: command" in line for line in lines)
        return {"connections_per_node": connections / size, "execs_per_node": execs / size}

    @staticmethod
    def _log(node: Any, since: str) -> list[str]:
        return str(node.text("journalctl", "-u", "ssh", "-o", "cat", "--since", f"@{since}")).splitlines()
