"""`sparkops watch` on a real node: one kept connection, each change told once, a node that is lost and comes back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkops.watching.service_unit import service_unit
from tests.e2e.conftest import Shell, until
from tests.lab.node import Node


class Watching:
    """A node with one declared file, watched by a process."""

    def __init__(self, shell: Shell, node: Node) -> None:
        self.shell, self.node = shell, node
        shell.write(
            "roles/own/role.yml",
            "summary: a file\nscope: node\nresources: [{file: /etc/lab-watched, content: hello}]\n",
        )
        shell.write(
            "inventory.yml",
            "version: 1\ncluster: watched\nroles: [own]\nconnection: {user: spark, become: true, connect_timeout: 10}\n"
            f"nodes: {{{node.name}: {{}}}}\n",
        )
        shell.run("apply", "inventory.yml", "--role", "own")
        self.before = self.logins()
        self.log = shell.folder / "changes"
        self.process = subprocess.Popen(["true"])

    def logins(self) -> int:
        """The connections that the node's sshd has accepted."""
        self.node.exec("journalctl", "--sync")
        return self.node.text("journalctl", "-u", "ssh", "-o", "cat").count("Accepted publickey")

    def sessions(self) -> list[str]:
        """The processes of the node's sshd that serve a connection."""
        return self.node.exec("pgrep", "-f", "sshd: spark@notty", check=False).stdout.decode().split()

    def start(self) -> None:
        hook = f"sh -c 'cat >> {self.log}; echo >> {self.log}'"
        words = ("--role", "own", "--interval", "1s", "--jitter", "0s", "--on-change", hook, "--heartbeat", "beat.prom")
        self.process = self.shell.start("watch", *words)
        self.rounds(2)

    def rounds(self, more: int) -> None:
        """So many more rounds."""
        for _ in range(more):
            before = self.beat()
            until(lambda before=before: self.beat() != before, self.process)

    def beat(self) -> bytes:
        path = self.shell.folder / "beat.prom"
        return path.read_bytes() if path.exists() else b""

    def told(self, count: int) -> str:
        """The last of so many messages, once there are as many."""
        until(lambda: self.log.exists() and self.log.read_text().count("\n") >= count, self.process, 240)
        lines = self.log.read_text().splitlines()
        assert len(lines) == count, lines
        return lines[-1]


@pytest.fixture
def watching(shell: Shell, node: Node) -> Iterator[Watching]:
    made = Watching(shell, node)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.communicate()


def test_changes_are_told_once_over_one_connection_that_is_kept(watching: Watching, shell: Shell) -> None:
    node = watching.node
    watching.start()
    node.exec("sh", "-c", "echo edited > /etc/lab-watched")
    first = watching.told(1)
    assert '"appeared"' in first
    assert "drift-differs" in first
    watching.rounds(2)
    assert watching.logins() == watching.before + 1, "one connection for all rounds"
    shell.run("apply", "inventory.yml", "--role", "own")
    assert '"went"' in watching.told(2)
    assert watching.logins() == watching.before + 2, "that of the apply"

    until(lambda: len(watching.sessions()) == 1)  # that of the apply is over
    node.exec("kill", *watching.sessions())
    watching.rounds(3)
    assert watching.logins() == watching.before + 3, "a connection that is lost is made anew"
    watching.told(2)

    watching.process.send_signal(signal.SIGTERM)
    watching.process.wait(120)
    assert watching.process.returncode == 0
    until(lambda: not watching.sessions())


@pytest.mark.slow
def test_a_node_that_hangs_is_told_and_its_return_too(watching: Watching) -> None:
    watching.start()
    with watching.node.paused():
        silent = watching.told(1)
        assert '"unknown"' in silent
        watching.rounds(2)
    assert '"went"' in watching.told(2)


def test_systemd_understands_the_unit(node: Node, tmp_path: Path) -> None:
    text = service_unit(
        ["/usr/bin/python3", "-c", "100% $HOME 'x'"],
        inventory="a b.yml",
        user="spark",
        folder=Path("/home/spark"),
        environment={"XDG_STATE_HOME": "/srv/a b%"},
    )
    node.write("/etc/systemd/system/sparkops-watch.service", text.encode())
    done = node.exec("systemd-analyze", "verify", "/etc/systemd/system/sparkops-watch.service")
    assert done.stderr == b""
    shown = node.text("systemctl", "show", "sparkops-watch", "-p", "Environment", "-p", "ExecStart")
    assert "/srv/a b%" in shown
    assert "argv[]=/usr/bin/python3 -c 100% $HOME 'x' ;" in shown or "100% $$HOME" in shown
