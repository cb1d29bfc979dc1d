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
import stat
from collections.abc import Collection, Sequence
from typing import Any

from sparkops.core import atomic
from sparkops.core.descriptors import FILE, FOLDER, closing, names
from sparkops.core.messages import Refused
from sparkops.programs import file_flags
from sparkops.programs.checkpoints.proof import RECORD

Files = Sequence[tuple[str, int, str]]
"""Path, bytes and oid of each file of a manifest or record."""
RECORD_LIMIT = 64 << 20
"""Bytes of a record that are read."""
ASIDE = ".before-sparkops"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class CheckpointFolder:
    """The folder of one checkpoint and the names beside it. `path` is absolute."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.parent, self.name = os.path.split(path)
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
        """A descriptor of the published folder, None where there is nothing.

        Raises Refused `checkpoint-not-a-folder`.
        """
        try:
            return os.open(self.path, FOLDER)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            found = "a link" if os.path.islink(self.path) else "a file"
            raise Refused.of("checkpoint-not-a-folder", folder=self.path, found=found) from None

    def holds(self, handle: int) -> bool:
        """Whether this open folder is still the published one."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(handle))
        return False

    def stage(self, user: pwd.struct_passwd) -> int:
        """The staging folder, made where it is lacking, as the user's own; its descriptor."""
        os.makedirs(self.parent, mode=0o755, exist_ok=True)
        path = self.beside(self.partial)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        except OSError as error:
            file_flags.refuse(self.parent, self.parent)
            raise OSError(error.errno, error.strerror, self.parent) from None
        handle = os.open(path, FOLDER)
        give(handle, user)
        return handle

    def publish(self, staging: int, *, aside: bool = False) -> str:
        """The staging folder takes the name of what stood there, which goes to the old name.

        With `aside` that stays beside instead; returns its path, else "". Synced to disk. Raises OSError, Refused
        `folder-cannot-be-moved`, where the file system has it so; then nothing is left beside.
        """
        exists = os.path.lexists(self.path)
        if not exists:
            os.fchmod(staging, 0o755)
        os.fsync(staging)
        set_aside = self._free_name() if aside else ""
        try:
            if set_aside:
                self._swap(set_aside)
            elif exists:
                self._replace()
            else:
                os.rename(self.beside(self.partial), self.path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EBUSY):
                raise OSError(error.errno, error.strerror, self.path) from None
            self.sweep()
            raise Refused.of("folder-cannot-be-moved", folder=self.path, text=error.strerror) from None
        atomic.sync(self.parent)
        return set_aside

    def _replace(self) -> None:
        partial, old = self.beside(self.partial), self.beside(self.old)
        atomic.remove(old)
        if _exchange(partial, self.path):
            os.rename(partial, old)
        else:
            os.rename(self.path, old)
            os.rename(partial, self.path)

    def _swap(self, aside: str) -> None:
        """As `_replace`, but what is somebody else's never has the name of a helper, under which it would be swept."""
        partial = self.beside(self.partial)
        os.rename(partial, aside)
        if not _exchange(aside, self.path):
            os.rename(aside, partial)
            os.rename(self.path, aside)
            os.rename(partial, self.path)

    def set_aside(self) -> list[str]:
        """The paths of what was set aside."""
        return [self.beside(name) for name in names(self.parent) if self.original_name(name) == self.name]

    @staticmethod
    def original_name(name: str) -> str:
        """The name that a folder which was set aside had before; "" for any other name."""
        found = re.fullmatch(f"(.+){re.escape(ASIDE)}(-[0-9]+)?", name)
        return found[1] if found else ""

    def _free_name(self) -> str:
        """A path to set the folder aside that nothing has yet."""
        paths = (self.path + ASIDE + (f"-{number}" if number > 1 else "") for number in itertools.count(1))
        return next(path for path in paths if not os.path.lexists(path))

    def sweep(self) -> None:
        for name in self.helpers:
            atomic.remove(self.beside(name))

    def abandon(self, name: str) -> None:
        """Remove one of the helper folders: a staging folder out of sight first."""
        atomic.remove(self.beside(self.old))
        if name == self.partial:
            os.rename(self.beside(name), self.beside(self.old))
            atomic.remove(self.beside(self.old))

    def retire(self) -> None:
        """Remove the published folder: out of sight first."""
        atomic.remove(self.beside(self.old))
        os.rename(self.path, self.beside(self.old))
        self.sweep()


def _exchange(one: str, other: str) -> bool:
    """Swap two names at once; False where the kernel or the file system can't."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    at = ctypes.c_int(_AT_FDCWD)
    if call(at, os.fsencode(one), at, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), one)


def give(handle: int, user: pwd.struct_passwd, paths: Collection[str] | None = None) -> None:
    """Make an open folder and what is in it the user's to change; with `paths` only these, and the folders above them.

    Links and files with other names elsewhere stay as they are.
    """
    if os.getuid() != 0:
        return
    folders = None if paths is None else {".", *(parent for path in paths for parent in _parents(path))}
    for folder, _, files, at in os.fwalk(".", dir_fd=handle, follow_symlinks=False):
        status = os.fstat(at)
        if folders is None:
            os.fchmod(at, stat.S_IMODE(status.st_mode) & 0o777 | 0o700)
        if status.st_uid != user.pw_uid and (folders is None or os.path.normpath(folder) in folders):
            os.fchown(at, user.pw_uid, user.pw_gid)
        for name in files:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            chosen = paths is None or os.path.normpath(os.path.join(folder, name)) in paths
            if chosen and stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != user.pw_uid:
                os.chown(name, user.pw_uid, user.pw_gid, dir_fd=at, follow_symlinks=False)


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def record_of(handle: int) -> tuple[str, dict[str, Any]]:
    """The digest and content of the record in an open folder; ("", {}) without a usable one."""
    above, name = os.path.split(RECORD)
    try:
        with closing(os.open(above, FOLDER, dir_fd=handle)) as folder:
            file = os.open(name, FILE | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return "", {}
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return "", {}
        data = source.read(RECORD_LIMIT)
    try:
        found = json.loads(data)
        files = [(str(path), int(size), str(oid)) for path, size, oid in found["files"]]
        record = {"repository": str(found["repository"]), "commit": str(found["commit"]), "files": files}
        if isinstance(found.get("built"), dict):
            record["built"] = found["built"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", {}
    return "sha256:" + hashlib.sha256(data).hexdigest(), record


def write_record(text: str) -> None:
    """Write the record of the folder that is the working directory."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.dirname(RECORD), 0o755)
    atomic.write(RECORD, text.encode(), 0o644)


def status_of(path: str, folder: int | None = None) -> os.stat_result | None:
    """The status of a file in an open folder (None: the working directory), links not followed; None without one."""
    try:
        return os.stat(path, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
