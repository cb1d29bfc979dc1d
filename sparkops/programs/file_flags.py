"""The flags of a file that keep even root from changing it, as `chattr` sets them. Source: ioctl_iflags(2)."""

import fcntl
import os
import struct

from sparkops.core.descriptors import FILE, closing
from sparkops.core.messages import Refused

_GET_FLAGS = 0x80086601
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


def attribute(path: str, folder: int | None = None) -> str:
    """`immutable` or `append-only` where the file system says so of a path below an open folder; else ""."""
    try:
        with closing(os.open(path, FILE | os.O_NONBLOCK, dir_fd=folder)) as handle:
            (flags,) = struct.unpack("l", fcntl.ioctl(handle, _GET_FLAGS, struct.pack("l", 0)))
    except OSError:
        return ""
    return "immutable" if flags & _IMMUTABLE else "append-only" if flags & _APPEND_ONLY else ""


def refuse(shown: str, path: str, folder: int | None = None) -> None:
    """Raises Refused `path-attribute` where `path` has such a flag; `shown` is the path that people know."""
    if found := attribute(path, folder):
        raise Refused.of("path-attribute", path=shown, attribute=found, letter=found[0])
