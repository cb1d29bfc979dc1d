"""Proof of content: hashes as the hub names them, and an index that saves hashing what has not changed since.

An *oid* is `sha256:HEX`, or `git-sha1:HEX` (of `blob SIZE\\0` and the content, as git names small files). The index
maps a file's identity (size, mtime_ns, ctime_ns, inode, device) to the oid that was read there and to the time of
reading, so it needs no paths, and a folder can be renamed without losing its proof. It must not know manifests.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from sparkops.programs import atomic

BLOCK = 1 << 20
DROP = 64 << 20
"""After so many bytes the page cache of what was read is given back: the GPU shares the memory."""
PROBES = 4
"""Pages of such a piece that are looked for in the page cache before it is read."""
SPAN = 64 << 20
"""Bytes of a content after which the SHA-256 so far is kept: what tells later in which span it was damaged."""
MOST_PREFIXES = 1 << 16
"""Prefix digests that are kept of one folder, 4 TiB of spans."""
PREFIXES = ".prefixes.json"
"""How the name of the file of prefix digests beside an index ends."""
_PREFIX = re.compile("[0-9a-f]{64}")


class Hash(Protocol):
    """What hashlib's objects offer."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> "Hash": ...


class Hasher:
    """A running hash. One of SHA-256 keeps its state at the end of each whole SPAN, to tell it or to go back there."""

    def __init__(self, oid: str, size: int) -> None:
        self.position = 0
        self._size = size
        self._ends: list[Hash] = []
        self._spans = oid.startswith("sha256:")
        self._made: Hash = hashlib.sha256() if self._spans else hashlib.sha1(usedforsecurity=False)
        if not self._spans:
            self._made.update(b"blob %d\0" % size)

    @property
    def prefixes(self) -> list[str]:
        """The digest of the content up to the end of each span but the last."""
        return [each.hexdigest() for each in self._ends[: max(0, self._size - 1) // SPAN]]

    def update(self, data: bytes | memoryview, /) -> None:
        view = memoryview(data)
        while view:
            part = view[: SPAN - self.position % SPAN]
            self._made.update(part)
            self.position += len(part)
            view = view[len(part) :]
            if self._spans and self.position % SPAN == 0:
                self._ends.append(self._made.copy())

    def hexdigest(self) -> str:
        return self._made.hexdigest()

    def back(self, spans: int) -> None:
        """To the end of so many spans; SHA-256 only."""
        del self._ends[spans:]
        self._made = self._ends[-1].copy() if spans else hashlib.sha256()
        self.position = spans * SPAN


def hasher(oid: str, size: int) -> Hasher:
    """A fresh hash that yields an oid of the same sort as `oid` for a content of `size` bytes."""
    return Hasher(oid, size)


def named(oid: str, made: Hasher) -> str:
    """The oid that a finished hash stands for."""
    return f"{oid.partition(':')[0]}:{made.hexdigest()}"


def read_oid(
    handle: int, oid: str, size: int, report: Callable[[int], None], prefixes: Callable[[list[str]], None] | None = None
) -> str:
    """The oid (of the sort of `oid`) of an open file; `report` gets the bytes read, may raise to stop.

    `prefixes` is told the prefix digests of what turns out to be `oid`.
    """
    made = hasher(oid, size)
    block = memoryview(bytearray(BLOCK))
    position, piece, foreign = 0, 0, _cached(handle, 0, size)
    while count := os.preadv(handle, [block], position):
        made.update(block[:count])
        position += count
        report(count)
        if position - piece >= DROP:
            if not foreign:
                drop_cache(handle, piece, position - piece)
            piece, foreign = position, _cached(handle, position, size)
    if not foreign:
        drop_cache(handle, piece, 0)
    found = named(oid, made)
    if prefixes is not None and found == oid and made.prefixes:
        prefixes(made.prefixes)
    return found


def _cached(handle: int, start: int, size: int) -> bool:
    """Whether the piece that begins here is in the page cache before it is read: somebody else's, to be left there.

    It is asked far behind its beginning, where what the kernel reads ahead does not reach.
    """
    length = max(0, min(DROP, size - start))
    try:
        for number in range(PROBES, 0, -1):
            os.preadv(handle, [bytearray(1)], start + length * number // (PROBES + 1), os.RWF_NOWAIT)
    except OSError:
        return False
    return True


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
        self._prefixes = os.path.join(state_dir, "verified", f"{name}{PREFIXES}")
        self.folder = folder
        self.entries: dict[str, tuple[str, float]] = {}
        self.record = ""
        """The digest of the record that a build published in the folder; its owner could write another one there."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            with open(self.path, encoding="utf-8") as file:
                stored = json.load(file)
            now = time.time()
            read = {str(key): (str(oid), float(at)) for key, (oid, at) in stored["files"].items()}
            self.entries = {key: (oid, at if at <= now else 0.0) for key, (oid, at) in read.items()}
            self.record = str(stored.get("record") or "")

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
        if self.record:
            record["record"] = self.record
        atomic.write(self.path, json.dumps(record).encode(), 0o600)

    def prefixes(self) -> dict[str, list[str]]:
        """The prefix digests that are kept, by oid: in a file of their own, for looking needs none of them."""
        try:
            with open(self._prefixes, encoding="utf-8") as file:
                stored = json.load(file)
            return dict(stored["of"]) if stored["span"] == SPAN else {}
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return {}

    def note_prefixes(self, oid: str, digests: list[Any]) -> None:
        """Keep a content's prefix digests, on disk at once: who hashed it may end before all is done."""
        kept = self.prefixes()
        if kept.get(oid) == digests or sum(map(len, kept.values())) + len(digests) > MOST_PREFIXES:
            return
        if all(isinstance(each, str) and _PREFIX.fullmatch(each) for each in digests):
            self._write_prefixes({**kept, oid: digests})

    def keep_prefixes(self, oids: set[str]) -> None:
        """Let go of the prefix digests of all other contents."""
        kept = self.prefixes()
        if not kept.keys() <= oids:
            self._write_prefixes({oid: digests for oid, digests in kept.items() if oid in oids})

    def _write_prefixes(self, of: dict[str, list[str]]) -> None:
        os.makedirs(os.path.dirname(self._prefixes), mode=0o700, exist_ok=True)
        atomic.write(self._prefixes, json.dumps({"span": SPAN, "of": of}).encode(), 0o600)

    def forget(self) -> None:
        """Remove it."""
        for path in (self.path, self._prefixes):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def indexes(state_dir: str) -> Iterator[Index]:
    """Every index that is kept there."""
    folder = os.path.join(state_dir, "verified")
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(each for each in os.listdir(folder) if not each.endswith(PREFIXES)):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    found = str(json.load(file)["folder"])
                yield Index(state_dir, found)
