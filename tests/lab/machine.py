"""The machine that carries the lab: what is installed on it, where the lab keeps things, how root is reached.

Two folders: the *cache* survives (images, the engine's storage, layers), the *state* belongs to one running lab.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RELEASE = "bookworm"
"""Debian's release of every root file system in the lab; its python3 is 3.11, as old as a node's may well be."""

PROGRAMS: Mapping[str, str] = {
    "debootstrap": "debootstrap",
    "dockerd": "docker.io",
    "docker": "docker.io",
    "ip": "iproute2",
    "iptables": "iptables",
    "docker-registry": "docker-registry",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
}
"""Program the lab calls → Debian and Ubuntu package that has it."""

ADMIN_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


class LabError(RuntimeError):
    """The lab could not be built or has lost a part; the text says which and what was tried."""


def cache_dir() -> Path:
    """Folder for what is expensive and can be made again; keyed inside by the hash of each recipe."""
    default = Path.home() / ".cache" / "sparkops-lab"
    return Path(os.environ.get("SPARKOPS_LAB_CACHE") or default)


def state_dir() -> Path:
    """Folder of the one running lab: process ids, keys, addresses. Gone when the lab is down."""
    configured = os.environ.get("SPARKOPS_LAB_STATE")
    if configured:
        return Path(configured)
    if os.geteuid() == 0:
        return Path("/run/sparkops-lab")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/sparkops-lab-{os.geteuid()}") / "sparkops-lab"


def recipe_key(*parts: object) -> str:
    """A short, stable name for whatever `parts` (plain values) produce."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment() -> dict[str, str]:
    """This process's environment with the administration folders on PATH, which a user's shell often lacks."""
    env = dict(os.environ)
    env["PATH"] = f"{env.get('PATH', '/usr/bin:/bin')}:{ADMIN_FOLDERS}"
    return env


def as_root(argv: Sequence[str]) -> list[str]:
    """`argv` such that it runs as root: unchanged for root, else through sudo that must not ask."""
    return list(argv) if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env=PATH", "--", *argv]


def run(
    argv: Sequence[str], *, root: bool = False, input: bytes | None = None, timeout: float = 900, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; with `check`, a failure raises LabError with what it printed."""
    command = as_root(argv) if root else list(argv)
    given: dict[str, object] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, env=environment(), **given)  # type: ignore[call-overload]
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(command[:6])} … did not end within {timeout:.0f} s") from late
    if check and done.returncode != 0:
        told = (done.stderr + done.stdout)[-2000:].decode(errors="replace").strip()
        raise LabError(f"{' '.join(command[:8])} … ended with {done.returncode}: {told}")
    return done  # type: ignore[no-any-return]


def install_missing() -> list[str]:
    """Install by apt what the lab needs and the machine lacks; returns the packages installed.

    Raises LabError where there is no apt, or neither root nor sudo without a password.
    """
    path = environment()["PATH"]
    packages = {package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    if not debian_keyring():
        packages.add("debian-archive-keyring")
    if not packages:
        return []
    run(["sh", str(Path(__file__).with_name("apt.sh")), *sorted(packages)])
    return sorted(packages)


def debian_keyring() -> Path | None:
    """The keyring debootstrap checks Debian's signatures with; present on Debian, a package elsewhere."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    return keyring if keyring.exists() else None


def debian_mirror() -> str | None:
    """The mirror this machine itself takes Debian from, or None (debootstrap's default) where it isn't Debian."""
    if shutil.which("apt-get") is None:
        return None
    listed = run(["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"], check=False)
    for line in listed.stdout.decode().splitlines():
        release, component, *uri = line.split()
        if release == RELEASE and component == "main" and uri and "debian" in uri[0]:
            return uri[0]
    return None


@dataclass(frozen=True)
class Daemon:
    """A process started by the lab; the start time keeps a reused process id from being ended by mistake."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Daemon:
        started = start_time(pid)
        if started is None:
            raise LabError(f"process {pid} ended right after its start")
        return cls(pid, started)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def stop(self, patience: float = 20) -> None:
        """Ask it to end, then kill it after `patience` seconds."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive:
                return
            run(["kill", f"-{int(sign)}", str(self.pid)], root=True, check=False)
            wait_until(lambda: not self.alive, patience, interval=0.05)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"pid": self.pid, "started": self.started}))

    @classmethod
    def load(cls, path: Path) -> Daemon | None:
        """The process noted in `path`, or None where there is none or it has ended."""
        try:
            noted = cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return noted if noted.alive else None


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot (proc(5), field 22); None for a dead or zombie one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def start_daemon(argv: Sequence[str], log: Path, *, root: bool = False, cwd: Path | None = None) -> int:
    """Start a program in a session of its own, its output in `log`; returns the process id."""
    with log.open("ab") as out:
        command = as_root(argv) if root else list(argv)
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=environment(),
            cwd=cwd,
        ).pid


def wait_until(true: Callable[[], object], patience: float, *, interval: float = 0.1) -> bool:
    """Call `true` until it answers truthily or `patience` seconds have passed; the last answer."""
    deadline = time.monotonic() + patience
    while not (answer := true()):
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return bool(answer)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel drops it with the process, so it is never stale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def store_address(address: str) -> str:
    """Where a hub keeps its weights: the real client follows a redirect to the same host as one within the hub."""
    return str(ipaddress.ip_address(address) + 1)
