"""Room on a disk."""

import errno
import os

from sparkops.core.messages import Refused, os_error

MARGIN = 4 << 20
"""Bytes that must stay free beside the needed ones and a fiftieth of them."""


def require(need: int, folder: str) -> None:
    """Raises Refused `disk-space-too-small` where the working directory's disk has no room for `need` bytes.

    `folder` is the path that a person knows the working directory by.
    """
    available, needed = free(os.curdir), with_margin(need)
    if needed > available:
        raise Refused.of("disk-space-too-small", folder=folder, needed=needed, free=available)


def with_margin(need: int) -> int:
    """What has to be free for `need` bytes."""
    return need + MARGIN + need // 50


def free(folder: str) -> int:
    """The bytes that a user can still write to the disk of a folder, or of the nearest existing one above it."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder) or os.curdir
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def full(error: OSError, folder: str) -> Exception:
    """The error of a disk that filled up on the way, named by `folder`; any other error as it is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    found = os_error(error)
    found.values["path"] = folder
    return found
