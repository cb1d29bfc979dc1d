"""What somebody put into a checkpoint's folder moves along when another one takes its place; what can't is told."""

import contextlib
import os
import stat
from collections.abc import Callable

from sparkops.programs.checkpoints.local_sources import take_over


def carry(existing: int, ours: set[str], folder: str = ".") -> None:
    """Into the working directory: everything below the open folder that is not `ours` and finds its place free."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=existing)
    try:
        names = [name for name in os.listdir(here) if not (folder == "." and name == ".sparkops")]
        if not names:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            status, there = os.stat(name, dir_fd=here, follow_symlinks=False), _status(path)
            if stat.S_ISDIR(status.st_mode):
                if there is None or stat.S_ISDIR(there.st_mode):
                    carry(existing, ours, path)
            elif path not in ours and there is None:
                os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                if stat.S_ISLNK(status.st_mode):
                    os.symlink(os.readlink(name, dir_fd=here), path)
                elif stat.S_ISREG(status.st_mode):
                    take_over(f"/proc/self/fd/{here}/{name}", path)
                else:
                    with contextlib.suppress(OSError):  # what could not come along is found by `left_behind`
                        os.link(f"/proc/self/fd/{here}/{name}", path, follow_symlinks=False)
    finally:
        os.close(here)


def left_behind(
    existing: int, staging: int, ours: set[str], files: dict[str, str], known: Callable[[os.stat_result], str]
) -> list[str]:
    """The paths in an open folder that are not `ours`, and whose content is not in the folder that takes its place.

    `files` are the other's, path and hash; `known` tells the hash of a file that was read, or "".
    """
    left = []
    for folder, folders, names, at in os.fwalk(".", dir_fd=existing, follow_symlinks=False):
        for name in (*folders, *names):
            path = os.path.normpath(os.path.join(folder, name))
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or path in ours or path.startswith(".sparkops/"):
                continue
            there = _status(path, staging)
            if there is None or not (_same(name, at, there) or _moved(path, status, there, files, known)):
                left.append(path)
    return sorted(left)


def _same(name: str, at: int, there: os.stat_result) -> bool:
    """Whether it is the same file; of a link, the one that it leads to."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=at), there)
    except OSError:
        return False


def _moved(
    path: str, status: os.stat_result, there: os.stat_result, files: dict[str, str], known: Callable[..., str]
) -> bool:
    """Whether it is a copy: of a file with the hash that was proven, or of what `carry` found."""
    if path in files:
        return stat.S_ISREG(status.st_mode) and known(status) == files[path]
    return stat.S_IFMT(status.st_mode) == stat.S_IFMT(there.st_mode) and status.st_size == there.st_size


def _status(path: str, at: int | None = None) -> os.stat_result | None:
    try:
        return os.stat(path, dir_fd=at, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
