"""Why nobody answers at the Docker engine's socket, told apart so that each case has its own way out.

It must not know what Docker was wanted for. systemd is asked only once the socket has failed.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sparkops.core.messages import Unknown

SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
"""Where Docker's own units let it listen; what systemd tells is about these."""
UNITS = ("docker.service", "docker.socket")
ABSENT = ("docker-not-installed", "docker-masked", "docker-failed", "docker-stopped", "docker-elsewhere",
          "docker-deaf", "docker-not-running")  # fmt: skip
"""The reasons that say that no engine serves this node, not only that it could not be asked."""
LIMIT = 10.0
_KEYS = ("LoadState", "ActiveState", "Result", "MainPID")
_ITS_OWN = re.compile(r"(?:/var)?/run/docker/")
"""Sockets that the engine has for its own parts."""
_LISTENS = 0x10000
"""SO_ACCEPTCON in the flags of /proc/net/unix."""


@dataclass(frozen=True)
class Seen:
    """What the node tells of its engine: the units' properties, whether the program is there, where it listens."""

    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    installed: bool = False
    sockets: tuple[str, ...] = ()

    def of(self, unit: str, key: str) -> str:
        return self.units.get(unit, {}).get(key, "")


def why(path: str, error: OSError) -> Unknown:
    """The reason for which connecting to `path` failed with `error`."""
    if isinstance(error, PermissionError):
        return Unknown.of("docker-permission-denied", path=path)
    return reason(path, look()) if path in SOCKETS else Unknown.of("docker-not-running", path=path)


def broken(path: str) -> Unknown | None:
    """The reason where a connection was taken and not served: systemd listens for a service that does not start."""
    if path not in SOCKETS:
        return None
    seen = look()
    return reason(path, seen) if seen.of(UNITS[0], "ActiveState") not in ("", "active", "reloading") else None


def reason(path: str, seen: Seen) -> Unknown:
    """The one case that it is. Pure."""
    if masked := [unit for unit in UNITS if seen.of(unit, "LoadState") == "masked"]:
        return Unknown.of("docker-masked", units=" ".join(masked))
    state = seen.of(UNITS[0], "ActiveState")
    if seen.of(UNITS[0], "LoadState") in ("", "not-found"):
        if seen.sockets:
            return Unknown.of("docker-elsewhere", path=path, other=seen.sockets[0])
        return Unknown.of("docker-not-running" if seen.installed else "docker-not-installed", path=path)
    if state in ("active", "reloading"):
        if seen.sockets:
            return Unknown.of("docker-elsewhere", path=path, other=seen.sockets[0])
        return Unknown.of("docker-deaf", path=path)
    if state in ("activating", "deactivating"):
        return Unknown.of("docker-starting", state=state)
    if state == "failed":
        return Unknown.of("docker-failed", result=seen.of(UNITS[0], "Result"))
    return Unknown.of("docker-stopped")


def look() -> Seen:
    """What this node tells; what can't be asked is left out."""
    units = _units()
    process = units.get(UNITS[0], {}).get("MainPID", "0")
    listening = dict(_listening())
    held = [listening[inode] for inode in _inodes(process) if inode in listening]
    named = [each for each in listening.values() if os.path.basename(each) == "docker.sock"]
    found = dict.fromkeys(each for each in [*held, *named] if not _ITS_OWN.match(each) and each not in SOCKETS)
    return Seen(units, shutil.which("dockerd") is not None, tuple(found))


def _units() -> dict[str, dict[str, str]]:
    import subprocess  # only where something is wrong: an observation does not load it

    argv = ["systemctl", "show", "--property", ",".join(("Id", *_KEYS)), *UNITS]
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL, text=True, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    blocks = [
        dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in done.stdout.split("\n\n")
    ]
    return {block["Id"]: block for block in blocks if "Id" in block}


def _listening() -> Iterable[tuple[str, str]]:
    """Inode and path of each Unix socket that somebody listens on."""
    with contextlib.suppress(OSError), open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file:
            parts = line.split()
            if len(parts) == 8 and parts[7].startswith("/") and int(parts[3], 16) & _LISTENS:
                yield parts[6], parts[7]


def _inodes(process: str) -> Iterable[str]:
    """The inodes of the sockets that a process has open."""
    folder = f"/proc/{process}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"{folder}/{name}")):
                    yield found[1]
