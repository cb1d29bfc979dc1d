"""The engine that carries the nodes: the machine's own if one answers, else one of the lab's.

An own engine has its own storage (kept in the cache, so that images are imported once), socket and bridge. What
it does to the machine, namely `ip_forward`, firewall rules and a bridge, is noted before and undone after.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .machine import Daemon, LabError, run

BRIDGE = "10.213.76.1/24"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CAPABILITIES = """
    audit_control audit_read audit_write block_suspend chown dac_override dac_read_search fowner fsetid ipc_lock
    ipc_owner kill lease linux_immutable mknod net_admin net_bind_service net_broadcast net_raw setgid setfcap
    setpcap setuid sys_admin sys_boot sys_chroot sys_nice sys_pacct sys_ptrace sys_tty_config syslog wake_alarm
"""


@dataclass(frozen=True)
class Engine:
    """A Docker engine, reached through its command line client at `host` (an address as in DOCKER_HOST)."""

    host: str
    own: bool

    def __call__(
        self, *argv: str, input: bytes | None = None, timeout: float = 900, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one `docker` command."""
        return run([*self.client, *argv], input=input, timeout=timeout, check=check)

    @property
    def client(self) -> list[str]:
        return ["docker", "-H", self.host]

    def text(self, *argv: str) -> str:
        """What one `docker` command prints, stripped."""
        return self(*argv).stdout.decode().strip()

    def answers(self) -> bool:
        try:
            return self("version", "--format", "{{.Server.Version}}", timeout=10, check=False).returncode == 0
        except (FileNotFoundError, LabError):
            return False

    def has_image(self, name: str) -> bool:
        return self("image", "inspect", name, check=False).returncode == 0

    def import_tree(self, root: Path, name: str) -> None:
        """Make an image of one layer from the folder `root`, which root owns."""
        tar = subprocess.Popen(
            machine.as_root(["tar", "-C", str(root), "--numeric-owner", "-c", "."]), stdout=subprocess.PIPE
        )
        done = subprocess.run([*self.client, "import", "-", name], stdin=tar.stdout, capture_output=True)
        if tar.wait() != 0 or done.returncode != 0:
            raise LabError(f"docker import {name}: {done.stderr.decode(errors='replace').strip()}")


def find(state: Path, cache: Path) -> Engine | None:
    """The engine that this machine has or that a running lab started; None where a new one is needed."""
    for engine in (own(state), Engine("unix:///var/run/docker.sock", own=False)):
        if Path(engine.host.removeprefix("unix://")).exists() and engine.answers():
            return engine
    return None


def own(state: Path) -> Engine:
    return Engine(f"unix://{state / 'docker.sock'}", own=True)


def start(state: Path, cache: Path) -> Engine:
    """Start an engine of the lab's own and wait until it answers.

    One that died in mid-run may be started again: what the machine was like before the first start stays noted.
    """
    engine = own(state)
    before = {
        "ip_forward": FORWARDING.read_text().strip(),
        "rules": {
            tool: run([f"{tool}-save"], root=True, check=False).stdout.decode() for tool in ("iptables", "ip6tables")
        },
    }
    if not (state / "before.json").exists():
        (state / "before.json").write_text(json.dumps(before))
    pidfile = state / "dockerd.pid"
    pidfile.unlink(missing_ok=True)
    group = ["--group", str(_group())] if _group() else []
    argv = [
        "dockerd",
        *("--data-root", str(cache / "docker"), "--exec-root", str(state / "docker")),
        *("-H", engine.host, "--pidfile", str(pidfile), "--bip", BRIDGE, "--log-level", "warn"),
        *group,
    ]
    machine.start_daemon(argv, state / "dockerd.log", root=True)
    if not machine.wait_until(engine.answers, 150):
        raise LabError(f"dockerd did not answer within 150 s; its last words: {_tail(state / 'dockerd.log')}")
    return engine


def daemon_of(state: Path) -> Daemon | None:
    """The lab's own dockerd, by the file that it writes itself: whoever started it may have been killed meanwhile."""
    try:
        pid = int((state / "dockerd.pid").read_text())
        return Daemon.of(pid) if Path(f"/proc/{pid}/comm").read_text() == "dockerd\n" else None
    except (FileNotFoundError, ValueError, LabError):
        return None


def stop(state: Path, cache: Path) -> None:
    """End the lab's own engine, if any, and undo what it did to the machine."""
    daemon = daemon_of(state)
    if daemon is not None:
        daemon.stop(patience=60)
    if os.path.ismount(cache / "docker"):  # an engine that was killed leaves its storage mounted on itself
        run(["umount", str(cache / "docker")], root=True)
    _undo(state / "before.json")


def _undo(saved: Path) -> None:
    if not saved.exists():
        return
    before = json.loads(saved.read_text())
    run(["ip", "link", "delete", "docker0"], root=True, check=False)
    for tool, rules in before["rules"].items():
        absent = [table for table in ("nat", "filter") if f"*{table}\n" not in rules]
        text = rules + "".join(_empty(table) for table in absent)
        run([f"{tool}-restore"], root=True, input=text.encode(), check=False)
    run(["sh", "-c", f"echo {int(before['ip_forward'])} > {FORWARDING}"], root=True)
    saved.unlink()


def _empty(table: str) -> str:
    """A table as it is before anybody used it; not saved by iptables-save, so that it has to be said."""
    chains = {"filter": ("INPUT", "FORWARD", "OUTPUT"), "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")}[table]
    return f"*{table}\n" + "".join(f":{chain} ACCEPT [0:0]\n" for chain in chains) + "COMMIT\n"


def _group() -> int:
    """The group that may use the socket: the caller's, where the caller isn't root."""
    return os.getgid() if os.geteuid() else 0


def _tail(log: Path, size: int = 1500) -> str:
    return log.read_text(errors="replace")[-size:].strip() if log.exists() else "(nothing)"


def capabilities() -> Sequence[str]:
    """Capabilities a node gets: what systemd, sshd and a nested engine need and this machine can give.

    Never `sys_time`: the kernel warps its clock at the first time-zone call, for the whole machine.
    """
    wanted = CAPABILITIES.split()
    bounding = next(
        int(line.split()[1], 16)
        for line in Path("/proc/1/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    sys_resource = 24
    return [*wanted, "sys_resource"] if bounding >> sys_resource & 1 else wanted
