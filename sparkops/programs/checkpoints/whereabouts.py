"""Whether a checkpoint's folder is a place that only this machine knows to be taken: a mount point, a home, Docker's.

It must not know what is in the folder.
"""

import contextlib
import os
import pwd

from sparkops.core import atomic
from sparkops.core.messages import Refused
from sparkops.core.system_places import fault_of_folder
from sparkops.programs import mounts

MOUNTS = "/proc/self/mountinfo"
DOCKER = "/etc/docker/daemon.json"


def fault(folder: str, state_dir: str) -> tuple[str, dict[str, object]] | None:
    """The id and arguments of the error that forbids to replace this folder as a whole; None where nothing does."""
    real = os.path.realpath(folder)
    args: dict[str, object] = {"folder": folder if real == folder else f"{folder} (which is {real})"}
    if id := fault_of_folder(real, os.path.realpath(state_dir)):
        return id, args
    if real in (found := _mounts(real)):
        return "folder-is-mount-point", args
    if found:
        return "folder-has-mount-point", {**args, "mount": found[0]}
    for name, home in _homes():
        if _holds(real, home):
            return "folder-is-home-of", {**args, "user": name, "home": home}
    root = _docker_root()
    if root and (_holds(real, root) or _holds(root, real)):
        return "folder-is-docker", {**args, "root": root}
    return None


def require(folder: str, state_dir: str) -> None:
    """Raises Refused with the id of `fault`."""
    if found := fault(folder, state_dir):
        raise Refused(*found)


def _holds(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _mounts(folder: str) -> list[str]:
    """The mount points at a folder and below it."""
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            return sorted(each.point for each in mounts.mounts(file.read()) if _holds(folder, each.point))
    except OSError:
        return []


def _homes() -> list[tuple[str, str]]:
    """Users of this machine and their homes, but for those of the system itself."""
    users = [(user.pw_name, os.path.normpath(user.pw_dir)) for user in pwd.getpwall() if user.pw_dir.startswith("/")]
    return [(name, home) for name, home in users if home != "/" and home != "/nonexistent"]


def _docker_root() -> str:
    """Where the Docker engine keeps its images, if its configuration names a place."""
    with contextlib.suppress(OSError):
        root = atomic.mapping(DOCKER).get("data-root")
        return os.path.realpath(root) if isinstance(root, str) and root.startswith("/") else ""
    return ""
