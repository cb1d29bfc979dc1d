"""Hashes of contents as the hub names them.

An *oid* is `sha256:HEX`, or `git-sha1:HEX` (of `blob SIZE\\0` and the content, as git names small files). It must not
know manifests or folders.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable
from typing import Protocol

BLOCK = 1 << 20
DROP = 64 << 20
"""After so many bytes the page cache of what was read is given back: the GPU shares the memory."""
SPAN = 64 << 20
"""Bytes of a content after which the SHA-256 so far is recorded, which tells later where it is damaged."""


class Hash(Protocol):
    """What hashlib's objects offer."""

    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> "Hash": ...


class Hasher:
    """The running hash of a content of `size` bytes, of the algorithm that `algorithm` (or an oid) begins with.

    One of SHA-256 keeps its state at the end of each whole SPAN: to report it (`prefixes`), or to return to it.
    """

    def __init__(self, algorithm: str, size: int) -> None:
        self.position = 0
        self._size = size
        self._ends: list[Hash] = []
        self._algorithm = algorithm.partition(":")[0]
        self._spans = self._algorithm == "sha256"
        self._hash: Hash = hashlib.sha256() if self._spans else hashlib.sha1(usedforsecurity=False)
        if not self._spans:
            self._hash.update(b"blob %d\0" % size)

    @property
    def oid(self) -> str:
        """The oid of what was hashed."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    @property
    def prefixes(self) -> list[str]:
        """The digest of the content up to the end of each span but the last."""
        return [each.hexdigest() for each in self._ends[: max(0, self._size - 1) // SPAN]]

    def update(self, data: bytes | memoryview, /) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view:
            part = view[: SPAN - self.position % SPAN]
            self._hash.update(part)
            self.position += len(part)
            view = view[len(part) :]
            if self._spans and self.position % SPAN == 0:
                self._ends.append(self._hash.copy())

    def rewind(self, spans: int) -> None:
        """Return to the end of so many spans; SHA-256 only."""
        del self._ends[spans:]
        self._hash = self._ends[-1].copy() if spans else hashlib.sha256()
        self.position = spans * SPAN


def read_oid(
    handle: int, algorithm: str, size: int, report: Callable[[int], None],
    prefixes: Callable[[list[str]], None] | None = None,
) -> str:  # fmt: skip
    """The oid of an open file; `report` gets the bytes read and may raise to stop.

    `algorithm` may be an oid; `prefixes` then gets the prefix digests of what turns out to be that.
    """
    hasher = Hasher(algorithm, size)
    block = memoryview(bytearray(BLOCK))
    dropped = 0
    while count := os.preadv(handle, [block], hasher.position):
        hasher.update(block[:count])
        report(count)
        if hasher.position - dropped >= DROP:
            drop_cache(handle, dropped, hasher.position - dropped)
            dropped = hasher.position
    drop_cache(handle, dropped, 0)
    if prefixes is not None and hasher.oid == algorithm and hasher.prefixes:
        prefixes(hasher.prefixes)
    return hasher.oid


def drop_cache(handle: int, start: int, length: int) -> None:
    """Tell the kernel that these pages are not needed; a file system that can't is no matter."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(handle, start, length, os.POSIX_FADV_DONTNEED)
