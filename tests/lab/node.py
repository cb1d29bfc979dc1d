"""One node: a container whose PID 1 is systemd, with sshd, sudo and a Docker of its own.

What a container can't be (see a node's limits): its kernel, boot_id and uptime are the machine's. Judge a reboot by
`boot_time`. Set only `net.ipv4.*` on it; `vm.*` and the like would change the machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .dockerd import Engine
from .machine import LabError, run, wait_until

FABRIC_SUBNET = "10.213.78"
ENVIRONMENT = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root")
_PROCESSES: dict[str, tuple[int, str]] = {}
"""By container the process id of its PID 1 and when that started."""


def _started(pid: int) -> str:
    """The start time of a process in clock ticks; "" without it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


@dataclass(frozen=True)
class Node:
    """A node of the running lab.

    `address` is its IPv4 address, kept over restarts; `host_key` its public key as known_hosts has it.
    """

    name: str
    address: str
    host_key: str
    engine: Engine
    state: Path

    @property
    def container(self) -> str:
        return container_name(self.name)

    def exec(
        self, *argv: str, input: bytes | None = None, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in the node as root, beside SSH; with `check`, failure raises LabError.

        What it leaves running must not hold its output. Entering the namespaces costs a tenth of `docker exec`.
        """
        enter = ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "--", *ENVIRONMENT]
        return run([*enter, *argv], root=True, input=input, check=check, timeout=timeout)

    def text(self, *argv: str) -> str:
        """What a program run in the node prints, stripped."""
        return self.exec(*argv).stdout.decode().strip()

    def read(self, path: str) -> bytes:
        return self.exec("cat", "--", path).stdout

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Put a file there, its folders made."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.exec("sh", "-c", script, "sh", path, f"{mode:o}", input=content)

    def exists(self, path: str) -> bool:
        return self.exec("test", "-e", path, check=False).returncode == 0

    def locked(self, path: str = "/var/lib/sparkops/lock") -> bool:
        """Whether the process that took it holds this file's lock; to try it would make others see it busy."""
        held = 'n=$(stat -c %i "$0") && grep -q "FLOCK.*:$n " /proc/locks'
        return self.exec("sh", "-c", held, path, check=False).returncode == 0

    def ssh(
        self, *argv: str, user: str = "spark", input: bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command line over SSH with the system's own client and the lab's key; never raises on failure."""
        client = ["ssh", "-F", str(self.state / "ssh_config"), "-o", "BatchMode=yes", "-l", user, self.name, "--"]
        return run([*client, *argv], input=input, timeout=timeout, check=False)

    @property
    def boot_time(self) -> int:
        """Start time of PID 1 in clock ticks of the machine; another value means that the node was rebooted."""
        return int(self.read("/proc/1/stat").decode().rpartition(")")[2].split()[19])

    @property
    def pid(self) -> int:
        """The machine's process id of the node's PID 1; 0 while it has none."""
        known = _PROCESSES.get(self.container)
        if known is None or not known[1] or _started(known[0]) != known[1]:
            found = self.engine("inspect", "-f", "{{.State.Pid}}", self.container, check=False).stdout.decode().strip()
            known = _PROCESSES[self.container] = (int(found or 0), _started(int(found or 0)))
        return known[0]

    def wait(self, patience: float = 150) -> None:
        """Until systemd has started everything, Docker and sshd answer."""

        def booted() -> bool:
            said = self.exec("systemctl", "is-system-running", "--wait", check=False).stdout.decode().strip()
            return said in ("running", "degraded")

        if not wait_until(lambda: booted() and self.greets(), patience):
            raise LabError(f"{self.name} is not up after {patience:.0f} s: {self._journal()}")

    def greets(self, timeout: float = 2) -> bool:
        """Does sshd send its banner?"""
        try:
            with socket.create_connection((self.address, 22), timeout=timeout) as connection:
                connection.settimeout(timeout)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def restart(self, patience: float = 150) -> None:
        """Reboot: everything ends and starts again; address, disk and host key stay."""
        self.engine("restart", "-t", "20", self.container)
        self.wait(patience)

    def kill(self) -> None:
        """Power loss: every process is gone at once. `start` turns it on again."""
        self.engine("kill", "-s", "KILL", self.container)

    def start(self, patience: float = 150) -> None:
        self.engine("start", self.container)
        self.wait(patience)

    def pause(self) -> None:
        """Freeze every process: TCP still connects, nothing answers, as on a node that is out of memory."""
        self.engine("pause", self.container)

    def unpause(self) -> None:
        self.engine("unpause", self.container)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self.pause()
        try:
            yield
        finally:
            self.unpause()

    def cut(self, *, refuse: bool = False, port: int = 22) -> None:
        """Close a port from outside: silence (a connect time-out), or with `refuse` a reset, also of what is open."""
        self._firewall("-I", refuse, port)

    def restore(self, *, refuse: bool = False, port: int = 22) -> None:
        self._firewall("-D", refuse, port)

    def _firewall(self, action: str, refuse: bool, port: int) -> None:
        verdict = ["REJECT", "--reject-with", "tcp-reset"] if refuse else ["DROP"]
        rule = ["iptables", action, "INPUT", "-p", "tcp", "--dport", str(port), "-j", *verdict]
        run(["nsenter", "-t", str(self.pid), "-n", *rule], root=True)

    def tmpfs(self, path: str, size: str) -> None:
        """A small disk at `path` (`size` as "8m"): filling it gives a true ENOSPC."""
        self.exec("mkdir", "-p", path)
        self.exec("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path)

    @property
    def fabric_address(self) -> str:
        """Its own address on the second network, which no other node of the lab has."""
        return f"{FABRIC_SUBNET}.{self.address.rpartition('.')[2]}"

    def plug(self, network: str) -> None:
        """Connect the second network (see Lab.fabric). The interface's name may change; find it by its address."""
        self.engine("network", "connect", "--ip", self.fabric_address, network, self.container)

    def unplug(self, network: str) -> None:
        self.engine("network", "disconnect", network, self.container)

    def remove(self) -> None:
        """End the node and everything that it stored."""
        self.engine("rm", "-f", "-v", self.container, check=False)
        for path in (self.state / "nodes" / self.name).glob("*"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.state / "nodes" / self.name)

    def _journal(self) -> str:
        failed = self.exec("systemctl", "--failed", "--no-legend", check=False).stdout.decode().strip()
        running = self.engine.text("ps", "-a", "--filter", f"name=^{self.container}$", "--format", "{{.Status}}")
        return f"container {running or 'gone'}; failed units: {failed or 'none'}"


def container_name(node: str) -> str:
    return f"sparkops-lab-{node}"
