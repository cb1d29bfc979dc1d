"""What somebody else put into a checkpoint's folder comes along when another folder takes its place, or is listed.

It comes along as it is or not at all: a file, link, socket or FIFO as the same inode by a second name, a folder with
owner, group, mode, times and extended attributes (ACLs are among them). Who publishes runs it, with the right to do so.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from sparkops.core.descriptors import FOLDER, closing
from sparkops.programs.checkpoints.folder import status_of

Known = Callable[[os.stat_result], str]
"""The hash of a file that was read, or ""."""


def carry_over(existing: int, staging: int, ours: set[str], files: dict[str, str], known: Known) -> list[str]:
    """Have what is somebody else's below one open folder in another too; the paths of which that is not so.

    `ours` are the paths that are left behind, `files` those of the other folder with their hashes: a file that is at
    such a path is there too where it has that hash.
    """
    return sorted(_Carrier(existing, ours, files, known).folder(existing, staging, ""))


class _Carrier:
    def __init__(self, root: int, ours: set[str], files: dict[str, str], known: Known) -> None:
        self._device = os.fstat(root).st_dev
        self._ours, self._files, self._known = ours, files, known

    def folder(self, source: int, target: int, above: str) -> Iterator[str]:
        """What could not be carried over from one open folder into another."""
        for name in os.listdir(source):
            path = os.path.join(above, name)
            if path == ".sparkops":
                continue
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from self._below(name, source, target, path, status)
            elif path not in self._ours and not self._file(name, source, target, path, status):
                yield path

    def _below(self, name: str, source: int, target: int, path: str, status: os.stat_result) -> Iterator[str]:
        """A folder with what is in it. One of another file system stays where it is."""
        with closing(os.open(name, FOLDER, dir_fd=source)) as inside:
            if status.st_dev != self._device:
                yield path
                return
            new = status_of(name, target) is None
            if new and self._only_ours(inside, path):
                return
            if new:
                os.mkdir(name, 0o700, dir_fd=target)
            try:
                twin = os.open(name, FOLDER, dir_fd=target)
            except NotADirectoryError:
                yield path
                return
            with closing(twin):
                yield from self.folder(inside, twin, path)
                if not copy_attributes(inside, twin):
                    yield path

    def _only_ours(self, inside: int, path: str) -> bool:
        """Whether a folder was only there for files that are left behind."""
        leaves = [
            os.path.normpath(os.path.join(path, folder, name))
            for folder, folders, names, _ in os.fwalk(".", dir_fd=inside, follow_symlinks=False)
            for name in names or ([] if folders else [""])
        ]
        return all(leaf in self._ours for leaf in leaves)

    def _file(self, name: str, source: int, target: int, path: str, status: os.stat_result) -> bool:
        other = status_of(name, target)
        if other is None:
            with contextlib.suppress(OSError):
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
                return True
            return False
        if os.path.samestat(status, other):
            return True
        if stat.S_ISLNK(status.st_mode) and _leads_to(name, source, other):
            return True
        return path in self._files and stat.S_ISREG(status.st_mode) and self._known(status) == self._files[path]


def _leads_to(name: str, folder: int, other: os.stat_result) -> bool:
    """Whether a link leads to the very file that has its place now."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder), other)
    except OSError:
        return False


def copy_attributes(source: int, target: int, *, owner: tuple[int, int] | None = None) -> bool:
    """Give an open folder the owner, group, mode, extended attributes and times of another; whether all of it could be.

    `owner` are other numbers of user and group than those of `source`.
    """
    status = os.fstat(source)
    try:
        os.fchown(target, *(owner or (status.st_uid, status.st_gid)))
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        _copy_extended(source, target)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError:
        return False
    return True


def _copy_extended(source: int, target: int) -> None:
    wanted = {name: os.getxattr(source, name) for name in _names(source)}
    present = {name: os.getxattr(target, name) for name in _names(target)}
    for name in present.keys() - wanted.keys():
        os.removexattr(target, name)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(target, name, value)


def _names(folder: int) -> list[str]:
    """The extended attributes of an open folder; none where the file system has no such thing."""
    try:
        return os.listxattr(folder)
    except OSError:
        return []
