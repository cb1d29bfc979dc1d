"""A real sshd of the test's own on 127.0.0.1, with keys and files of its own and nothing of the machine's."""

from __future__ import annotations

import ctypes
import getpass
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from sparkops.nodes.target import Target

PR_SET_PDEATHSIG = 1
SSHD = Path("/usr/sbin/sshd")


def keygen(path: Path, *options: str) -> Path:
    """A new key pair; ed25519 without a passphrase unless told."""
    words = options or ("-t", "ed25519")
    passphrase = () if "-N" in words else ("-N", "")
    subprocess.run(["ssh-keygen", "-q", *words, *passphrase, "-f", str(path), "-C", "test"], check=True)
    return path


class Sshd:
    """One server. Clients of `key` may log in as the user who runs the test; `path` is PATH for what they start."""

    def __init__(self, folder: Path, *settings: str, host_keys: tuple[str, ...] = ("ed25519",), path: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.user = getpass.getuser()
        self.port = _free_port()
        self.host_keys = {kind: keygen(folder / f"host_{kind}", "-t", kind) for kind in host_keys}
        self.key = keygen(folder / "id_test")
        self.authorized = folder / "authorized_keys"
        self.authorize(self.key)
        self.log = folder / "sshd.log"
        config = [
            f"ListenAddress 127.0.0.1:{self.port}",
            *(f"HostKey {key}" for key in self.host_keys.values()),
            *settings,
            f"SetEnv HOME={folder}" + (f" PATH={path}" if path else ""),  # not the user's own dotfiles
            f"AuthorizedKeysFile {self.authorized}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PidFile none",
            "MaxStartups 200:1:300",
            "LogLevel VERBOSE",
        ]
        (folder / "sshd_config").write_text("\n".join(config) + "\n")
        self.start()

    def start(self) -> None:
        """Listen; returns when it does."""
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        argv = [str(SSHD), "-D", "-E", str(self.log), "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(argv, start_new_session=True, preexec_fn=_die_with_parent)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(self.log.read_text())

    def stop(self) -> None:
        """End it and every connection on it."""
        for pid in [*self.children(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)  # also of a frozen one, which must not go on
            except ProcessLookupError:
                continue
        self.process.wait()

    def freeze(self) -> None:
        """As a node out of memory: the kernel still takes connections, nobody answers."""
        for pid in [self.process.pid, *self.children()]:
            os.kill(pid, signal.SIGSTOP)

    def children(self) -> list[int]:
        """All processes below it, deepest last."""
        found: list[int] = []
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                continue
            found += [int(each) for each in below]
            waiting += [int(each) for each in below]
        return found

    def authorize(self, key: Path) -> None:
        """Let the owner of a key in."""
        with self.authorized.open("a") as file:
            file.write(key.with_name(key.name + ".pub").read_text())

    def host_key(self, kind: str = "ed25519") -> str:
        """`ssh-ed25519 AAAA…`."""
        public = self.host_keys[kind].with_name(self.host_keys[kind].name + ".pub").read_text()
        return " ".join(public.split()[:2])

    @property
    def logins(self) -> int:
        """How many logins it has seen."""
        return self.log.read_text().count("Accepted publickey for")

    def target(self, name: str = "spark-01", **changes: object) -> Target:
        """This server as a node of an inventory, its key pinned, and no configuration of the machine's user."""
        values: dict[str, object] = {
            "name": name,
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "host_keys": (self.host_key(next(iter(self.host_keys))),),
            "identity_file": str(self.key),
            "ssh_config": self.folder / "no_config",
            **changes,
        }
        return Target(**values)  # type: ignore[arg-type]


def _die_with_parent() -> None:
    """No server outlives a test run that was killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
