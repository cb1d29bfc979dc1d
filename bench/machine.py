"""Machines for benchmarks: an sshd each, in process and mount namespaces of its own, on a port of 127.0.0.1.

What is written there below the folders of APART goes into memory and ends with the machine: accounts can be made, and
the one that all run on stays as it was. Needs root, and overlayfs in the kernel.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

APART = "etc root srv var"
START = 20.0
"""Seconds for a server to listen."""
ENTER = """
set -e
mount -t tmpfs tmpfs "$1"
for each in $3; do
  mkdir -p "$1/$each/upper" "$1/$each/work"
  mount -t overlay overlay -o "lowerdir=/$each,upperdir=$1/$each/upper,workdir=$1/$each/work" "/$each"
done
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
cp "$2/sshd_config" "$2/host" "$2/authorized" "$1/"
exec /usr/sbin/sshd -D -E /run/sshd.log -f "$1/sshd_config"
"""
CONFIG = """
# Home is empty: what root's own dotfiles start would be paid by every exec.
ListenAddress 127.0.0.1:{port}
HostKey {place}/host
AuthorizedKeysFile {place}/authorized
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile none
MaxStartups 1000
MaxSessions 1000
LogLevel VERBOSE
SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME={place}
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Machine:
    """One machine, by the port and the public key of its sshd; `pid` is that one's number outside."""

    name: str
    port: int
    host_key: str
    pid: int

    def exec(self, *argv: str) -> str:
        """What a program prints there. Raises CalledProcessError."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--"]
        return subprocess.run([*enter, *argv], stdout=subprocess.PIPE, text=True, check=True).stdout

    def log(self) -> list[str]:
        """The lines that its sshd has written."""
        return self.exec("cat", "/run/sshd.log").splitlines()

    def last_pid(self) -> int:
        """The last process id that it gave away, which is also how many it gave away."""
        return int(self.exec("cat", "/proc/loadavg").split()[-1])


def made_key(path: Path) -> Path:
    """A new key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path], check=True)
    return path


@contextlib.contextmanager
def machine(name: str, folder: Path, key: Path) -> Iterator[Machine]:
    """A machine whose files are in a `folder`, where `key` logs in as root. It and all of its processes end with the
    block."""
    place = folder / "place"
    place.mkdir(parents=True)
    made_key(folder / "host")
    (folder / "authorized").write_text(key.with_suffix(".pub").read_text())
    port = _free_port()
    (folder / "sshd_config").write_text(CONFIG.format(port=port, place=place))
    apart = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen([*apart, "sh", "-c", ENTER, "sh", str(place), str(folder), APART]) as process:
        try:
            pid = _listening(process, port)
            yield Machine(name, port, " ".join((folder / "host.pub").read_text().split()[:2]), pid)
        finally:
            process.kill()


def _listening(process: subprocess.Popen[bytes], port: int) -> int:
    """The process id of the sshd, once it listens."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    raise RuntimeError(f"no sshd on port {port}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
