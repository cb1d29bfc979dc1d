"""A checkpoint's folder on the node, its staging folder beside it, and how one becomes the other.

    NAME                      what services read; `.sparkops/manifest.json` in it says what it is
    .NAME.sparkops-partial    staging: survives a crash, is resumed, becomes NAME by one rename
    .NAME.sparkops-old        what was replaced, on its way out
    .NAME.sparkops-quantized  what a build quantised first, as the base of its further steps
    NAME.before-sparkops      a folder with files of somebody else, which are not in NAME any more; never removed by us

It must not know how content gets into the staging folder.
"""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import json
import os
import pwd
import re
import shutil
import stat
from typing import Any

from sparkops.worker.calls import Refused

RECORD = ".sparkops/manifest.json"
RECORD_LIMIT = 64 << 20
ASIDE = ".before-sparkops"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_EXCHANGE = 2


class Place:
    """The three names of one checkpoint. `folder` is absolute."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.parent, self.name = os.path.split(folder)
        self.partial = f".{self.name}.sparkops-partial"
        self.old = f".{self.name}.sparkops-old"
        self.quantized = f".{self.name}.sparkops-quantized"

    def beside(self, name: str) -> str:
        """The path of a name in the parent folder."""
        return os.path.join(self.parent, name)

    def leftover(self) -> str:
        """The first of the helper names that exists, or empty."""
        return next((name for name in self.helpers if os.path.lexists(self.beside(name))), "")

    @property
    def helpers(self) -> tuple[str, ...]:
        """The names beside the folder."""
        return self.partial, self.old, self.quantized

    def open(self) -> int | None:
        """A descriptor of the published folder, None where there is nothing. Raises Refused for what is no folder."""
        try:
            return os.open(self.folder, _FOLDER)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            what = "a link" if os.path.islink(self.folder) else "no folder"
            raise Refused(
                f"{self.folder} is {what}", hint="declare the folder that it leads to, or move it away"
            ) from None

    def stage(self, who: pwd.struct_passwd) -> int:
        """The staging folder, made where it is lacking, as the user's own; its descriptor."""
        os.makedirs(self.parent, mode=0o755, exist_ok=True)
        path = self.beside(self.partial)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        handle = os.open(path, _FOLDER)
        hand_over(handle, who)
        return handle

    def publish(self, staging: int, *, aside: bool = False) -> str:
        """The staging folder takes the name, and the mode of what stood there, which goes to the old name.

        With `aside` that stays beside instead; returns its path, else "". Synced to disk.
        """
        there = os.path.lexists(self.folder)
        os.fchmod(staging, stat.S_IMODE(os.lstat(self.folder).st_mode) if there else 0o755)
        os.fsync(staging)
        kept = self._aside() if aside else ""
        if kept:
            self._swap(kept)
        elif there:
            self._replace()
        else:
            os.rename(self.beside(self.partial), self.folder)
        parent = os.open(self.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
        return kept

    def _replace(self) -> None:
        partial, old = self.beside(self.partial), self.beside(self.old)
        _remove(old)
        if _exchange(partial, self.folder):
            os.rename(partial, old)
        else:
            os.rename(self.folder, old)
            os.rename(partial, self.folder)

    def _swap(self, kept: str) -> None:
        """As `_replace`, but what is somebody else's never has the name of a helper, under which it would be swept."""
        partial = self.beside(self.partial)
        os.rename(partial, kept)
        if not _exchange(kept, self.folder):
            os.rename(kept, partial)
            os.rename(self.folder, kept)
            os.rename(partial, self.folder)

    def kept(self) -> list[str]:
        """The paths of what was set aside."""
        found = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = sorted(name for name in os.listdir(self.parent) if self.of_aside(name) == self.name)
        return [self.beside(name) for name in found]

    @staticmethod
    def of_aside(name: str) -> str:
        """Whose name it was, where this is the name of what was set aside; else ""."""
        found = re.fullmatch(f"(.+){re.escape(ASIDE)}(-[0-9]+)?", name)
        return found[1] if found else ""

    def _aside(self) -> str:
        """A path that nothing has yet."""
        names = (self.folder + ASIDE + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
        return next(name for name in names if not os.path.lexists(name))

    def sweep(self) -> None:
        """Remove the helper folders."""
        for name in self.helpers:
            _remove(self.beside(name))

    def abandon(self, name: str) -> None:
        """Remove one of the helper folders: a staging folder out of sight first."""
        _remove(self.beside(self.old))
        if name == self.partial:
            os.rename(self.beside(name), self.beside(self.old))
            _remove(self.beside(self.old))

    def retire(self) -> None:
        """Remove the published folder: out of sight first."""
        _remove(self.beside(self.old))
        os.rename(self.folder, self.beside(self.old))
        self.sweep()


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        else:
            shutil.rmtree(path)


def _exchange(one: str, other: str) -> bool:
    """Swap two names at once; False where the kernel or the file system can't."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here = ctypes.c_int(-100)
    done = call(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE))
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), one)


def hand_over(handle: int, who: pwd.struct_passwd) -> None:
    """Make an open folder and what is in it the user's; links and files with other names elsewhere stay as they are."""
    if os.fstat(handle).st_uid == who.pw_uid or os.getuid() != 0:
        return
    for _, folders, files, at in os.fwalk(".", dir_fd=handle, follow_symlinks=False):
        os.fchown(at, who.pw_uid, who.pw_gid)
        for name in (*folders, *files):
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.chown(name, who.pw_uid, who.pw_gid, dir_fd=at, follow_symlinks=False)
    os.fchown(handle, who.pw_uid, who.pw_gid)


def record_of(handle: int) -> tuple[str, dict[str, Any]]:
    """The digest and content of the record in an open folder; ("", {}) without a usable one."""
    try:
        folder = os.open(".sparkops", _FOLDER, dir_fd=handle)
    except OSError:
        return "", {}
    try:
        file = os.open("manifest.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return "", {}
    finally:
        os.close(folder)
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return "", {}
        data = source.read(RECORD_LIMIT)
    try:
        found = json.loads(data)
        files = [(str(path), int(size), str(oid)) for path, size, oid in found["files"]]
        kept = {"repository": str(found["repository"]), "commit": str(found["commit"]), "files": files}
        if isinstance(found.get("built"), dict):
            kept["built"] = found["built"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", {}
    return "sha256:" + hashlib.sha256(data).hexdigest(), kept
