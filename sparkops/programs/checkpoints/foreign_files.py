"""What somebody put into a checkpoint's folder moves along when another one takes its place; the rest is listed."""

import contextlib
import os
import stat
from collections.abc import Callable

from sparkops.programs.checkpoints.folder import status_of
from sparkops.programs.checkpoints.local_sources import take_over

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_foreign_files(existing: int, ours: set[str], folder: str = ".") -> None:
    """Into the working directory: everything below the open folder that is not `ours` and finds its path free."""
    source = os.open(folder, _FOLDER, dir_fd=existing)
    try:
        names = [name for name in os.listdir(source) if not (folder == "." and name == ".sparkops")]
        if not names:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            status, taken = os.stat(name, dir_fd=source, follow_symlinks=False), status_of(path)
            if stat.S_ISDIR(status.st_mode):
                if taken is None or stat.S_ISDIR(taken.st_mode):
                    copy_foreign_files(existing, ours, path)
            elif path not in ours and taken is None:
                os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                if stat.S_ISLNK(status.st_mode):
                    os.symlink(os.readlink(name, dir_fd=source), path)
                elif stat.S_ISREG(status.st_mode):
                    take_over(f"/proc/self/fd/{source}/{name}", path)
                else:
                    with contextlib.suppress(OSError):  # `unmatched_files` finds what could not be linked
                        os.link(f"/proc/self/fd/{source}/{name}", path, follow_symlinks=False)
    finally:
        os.close(source)


def unmatched_files(
    existing: int, staging: int, ours: set[str], files: dict[str, str], known: Callable[[os.stat_result], str]
) -> list[str]:
    """The paths in an open folder that are not `ours`, and whose content is not in the folder that takes its place.

    `files` are the other's, path and hash; `known` gives the hash of a file that was read, or "".
    """
    unmatched = []
    for folder, folders, names, at in os.fwalk(".", dir_fd=existing, follow_symlinks=False):
        for name in (*folders, *names):
            path = os.path.normpath(os.path.join(folder, name))
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) or path in ours or path.startswith(".sparkops/"):
                continue
            other = status_of(path, staging)
            if other is None or not (_same(name, at, other) or _copied(path, status, other, files, known)):
                unmatched.append(path)
    return sorted(unmatched)


def _same(name: str, at: int, other: os.stat_result) -> bool:
    """Whether it is the same file; of a link, the one that it leads to."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=at), other)
    except OSError:
        return False


def _copied(
    path: str, status: os.stat_result, other: os.stat_result, files: dict[str, str],
    known: Callable[[os.stat_result], str],
) -> bool:  # fmt: skip
    """Whether it is a copy: of a file with the verified hash, or of what `copy_foreign_files` found."""
    if path in files:
        return stat.S_ISREG(status.st_mode) and known(status) == files[path]
    return stat.S_IFMT(status.st_mode) == stat.S_IFMT(other.st_mode) and status.st_size == other.st_size
