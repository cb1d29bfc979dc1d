"""Proof of content: hashes as the hub names them, and an index that saves hashing what has not changed since.

An *oid* is `sha256:HEX`, or `git-sha1:HEX` (of `blob SIZE\\0` and the content, as git names small files). The index
maps a file's identity (size, mtime_ns, ctime_ns, inode, device) to the oid that was read there and to the time of
reading, so it needs no paths, and a folder can be renamed without losing its proof. It must not know manifests.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from sparkops.worker import claims

BLOCK = 4 << 20
DROP = 64 << 20
"""After so many bytes the page cache of what was read is given back: the GPU shares the memory."""


class Hash(Protocol):
    """What hashlib's objects offer."""

    def update(self, data: "bytes | memoryview", /) -> None: ...
    def hexdigest(self) -> str: ...


def hasher(oid: str, size: int) -> Hash:
    """A fresh hash that yields an oid of the same sort as `oid` for a content of `size` bytes."""
    if oid.startswith("sha256:"):
        return hashlib.sha256()
    made = hashlib.sha1(usedforsecurity=False)
    made.update(b"blob %d\0" % size)
    return made


def named(oid: str, made: Hash) -> str:
    """The oid that a finished hash stands for."""
    return f"{oid.partition(':')[0]}:{made.hexdigest()}"


def read_oid(handle: int, oid: str, size: int, report: Callable[[int], None]) -> str:
    """The oid (of the sort of `oid`) of an open file; `report` gets the bytes read, may raise to stop."""
    made = hasher(oid, size)
    position = dropped = 0
    while data := os.pread(handle, BLOCK, position):
        made.update(data)
        position += len(data)
        report(len(data))
        if position - dropped >= DROP:
            drop_cache(handle, dropped, position - dropped)
            dropped = position
    drop_cache(handle, dropped, 0)
    return named(oid, made)


def drop_cache(handle: int, start: int, length: int) -> None:
    """Tell the kernel that these pages are not needed; a file system that can't is no matter."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(handle, start, length, os.POSIX_FADV_DONTNEED)


def identity(status: os.stat_result) -> str:
    """What changes with every change of a file's content or attributes."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}:{status.st_dev}"


def lasting(status: os.stat_result) -> str:
    """The identity without ctime, which links and renames move: for our own staging only."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{status.st_dev}"


class Index:
    """The verification index of one folder, a file below the state folder."""

    def __init__(self, state_dir: str, folder: str) -> None:
        name = hashlib.sha256(folder.encode()).hexdigest()[:16]
        self.path = os.path.join(state_dir, "verified", f"{name}.json")
        self.folder = folder
        self.entries: dict[str, tuple[str, float]] = {}
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            with open(self.path, encoding="utf-8") as file:
                stored = json.load(file)
            now = time.time()
            read = {str(key): (str(oid), float(at)) for key, (oid, at) in stored["files"].items()}
            self.entries = {key: (oid, at if at <= now else 0.0) for key, (oid, at) in read.items()}

    def find(self, status: os.stat_result) -> tuple[str, float] | None:
        """The oid read at exactly this identity and when (seconds since the epoch), or None.

        What was read while the clock was wrong, at a time that is still to come, was read long ago: 0.
        """
        return self.entries.get(identity(status))

    def note(self, mark: str, oid: str, at: float | None = None) -> None:
        """Remember what was read at an identity."""
        self.entries[mark] = (oid, time.time() if at is None else at)

    def save(self, keep: set[str] | None = None) -> None:
        """Write it; with `keep`, only these identities."""
        if keep is not None:
            self.entries = {mark: entry for mark, entry in self.entries.items() if mark in keep}
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        record: dict[str, Any] = {"folder": self.folder, "files": self.entries}
        claims.write(self.path, json.dumps(record).encode(), 0o600)

    def forget(self) -> None:
        """Remove it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
