"""The state folder as it has to be before anything is written there: its names, and what is wrong with it.

It must not know what is in the files.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from sparkops.core.messages import Refused, os_error
from sparkops.programs import mounts

FOLDERS = ("claims", "originals", "verified", "compiled", "services", "generations", "adopted", "models")
FILES = ("key", "lock", "reboot.json", "history.jsonl", "history.jsonl.lock")
NAMES = (*FOLDERS, *FILES)
"""All names in the state folder that are sparkops' own."""


def make(folder: str) -> None:
    """The folder, made where it is lacking. Raises Refused where it can't be used, with the path that is in the way."""
    with explained(folder):
        for path, isdir in ((folder, True), *((os.path.join(folder, name), name in FOLDERS) for name in NAMES)):
            if os.path.lexists(path) and not (os.path.isdir(path) if isdir else os.path.isfile(path)):
                found = "a link that leads nowhere" if not os.path.exists(path) else "a file" if isdir else "a folder"
                raise Refused.of("own-path-occupied", path=path, found=found, declared="folder" if isdir else "file")
        os.makedirs(folder, mode=0o700, exist_ok=True)


@contextlib.contextmanager
def explained(folder: str) -> Iterator[None]:
    """What the operating system says about writing there, as a reason with a way out."""
    try:
        yield
    except OSError as error:
        path = str(error.filename or folder)
        if error.errno == errno.EROFS:
            mount = _mount_of(path)
            raise Refused.of("own-folder-read-only", path=path, mount=mount) from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            declared = "folder"
            raise Refused.of("own-path-occupied", path=_in_the_way(path), found="a file", declared=declared) from None
        if error.errno == errno.EISDIR:
            raise Refused.of("own-path-occupied", path=path, found="a folder", declared="file") from None
        raise os_error(OSError(error.errno, error.strerror, path)) from None


def _mount_of(path: str) -> str:
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        found = mounts.holding(file.read(), real)
    return found.point if found else "/"


def _in_the_way(path: str) -> str:
    """The first part of a path that is no folder."""
    parts = path.split("/")
    ways = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
    return next((way for way in ways if os.path.lexists(way) and not os.path.isdir(way)), path)
