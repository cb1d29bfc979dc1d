"""Contents on their way in: the parts that have arrived, a journal of them, and the hash that follows.

A content is known by its oid; its part stands in `.sparkops/content/` of the staging folder (the working directory) as
`OID.part` with `OID.json` beside it, so that a later run, also for another revision, goes on from there. Once proven it
is called `OID`. It must not know where the bytes come from.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

from sparkops.worker import claims, verifying
from sparkops.worker.calls import Refused

STORE = ".sparkops/content"
BLOCK = 1 << 20
"""Bytes that are hashed at once: they fit the processor's cache."""

Ranges = list[tuple[int, int]]


class Closed(Exception):
    """The content is finished; there is nothing to write any more."""


def merged(ranges: Ranges, start: int, end: int) -> Ranges:
    """`ranges` (sorted, apart from each other) with `start` to `end` in it."""
    before = [each for each in ranges if each[1] < start]
    after = [each for each in ranges if each[0] > end]
    touching = [each for each in ranges if each[1] >= start and each[0] <= end]
    whole = (min([start, *(each[0] for each in touching)]), max([end, *(each[1] for each in touching)]))
    return [*before, whole, *after] if end > start else ranges


def gaps(ranges: Ranges, size: int) -> Ranges:
    """What of 0 to `size` is not in `ranges`."""
    edges = [0, *(edge for each in ranges for edge in each), size]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


class Content:
    """One content in the staging folder. Threads write ranges of it, one of them at a time hashes what joined up."""

    whole = True
    """Whether all of it is wanted, so that an answer with the whole file is as good as one with a range."""

    def __init__(self, oid: str, size: int) -> None:
        self.oid = oid
        self.size = size
        self.place = os.path.join(STORE, oid.replace(":", "-"))
        self.lock = threading.Condition()
        self.done: Ranges = []
        self._users = 0
        self._hashing = threading.Lock()
        self._hash = verifying.hasher(oid, size)
        self._hashed = self._dropped = 0
        self._handle = -1

    @property
    def part(self) -> str:
        """The unproven part's path."""
        return self.place + ".part"

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        return sum(end - start for start, end in self.done)

    def missing(self) -> Ranges:
        """The ranges that are wanted and have not arrived."""
        return gaps(self.done, self.size)

    def proven(self) -> bool:
        """Whether it stands there, proven by an earlier run and untouched since."""
        note = _read(self.place + ".json")
        try:
            return note.get("proven") == verifying.lasting(os.lstat(self.place))
        except FileNotFoundError:
            return False

    def open(self) -> None:
        """Take up what an earlier run left."""
        note = _read(self.place + ".json")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self.part, flags, 0o644)
        length = os.fstat(self._handle).st_size
        for start, end in _pairs(note.get("done")):
            if 0 <= start < end <= min(self.size, length):
                self.done = merged(self.done, start, end)

    @contextlib.contextmanager
    def _using(self) -> Iterator[int]:
        """The open file, which stays open as long as this lasts. Raises Closed."""
        with self.lock:
            if self._handle < 0:
                raise Closed
            self._users += 1
        try:
            yield self._handle
        finally:
            with self.lock:
                self._users -= 1
                self.lock.notify_all()

    def write(self, position: int, data: bytes | memoryview) -> None:
        """Put bytes at their position; they count once `mark` says so. Raises Closed where it is finished already."""
        view = memoryview(data)
        with self._using() as handle:
            while view:
                wrote = os.pwrite(handle, view, position)
                view, position = view[wrote:], position + wrote

    def mark(self, start: int, end: int) -> bool:
        """Bytes from `start` to `end` are there; noted on disk where more is to come. True for who completes it."""
        with self._using() as handle:
            if end - start < self.size:
                os.fdatasync(handle)
            with self.lock:
                before = self.missing()
                self.done = merged(self.done, start, end)
                complete = not self.missing()
                if not complete or not self.whole:
                    claims.write(self.place + ".json", json.dumps({"done": self.done}).encode(), 0o600)
                return bool(before) and complete

    def follow(self, wait: bool = False) -> None:
        """Hash on, as far as the bytes have joined up from the start; without `wait`, leave it to who is at it."""
        if not self._hashing.acquire(blocking=wait):
            return
        block = memoryview(bytearray(BLOCK))
        try:
            while self._hashed < (end := self._joined()):
                size = os.preadv(self._handle, [block[: end - self._hashed]], self._hashed)
                if not size:
                    raise OSError(5, "bytes that were written can't be read", self.part)
                self._hash.update(block[:size])
                self._hashed += size
                self._give_back()
        finally:
            self._hashing.release()

    def _joined(self) -> int:
        with self.lock:
            return self.done[0][1] if self.done and self.done[0][0] == 0 else 0

    def _give_back(self) -> None:
        if self._hashed - self._dropped >= verifying.DROP:
            os.fdatasync(self._handle)
            verifying.drop_cache(self._handle, self._dropped, self._hashed - self._dropped)
            self._dropped = self._hashed

    def prove(self) -> str:
        """Compare the finished hash; the proven file gets its name. Returns the oid found (another one: dropped)."""
        found = verifying.named(self.oid, self._hash)
        if found != self.oid:
            self.drop()
            return found
        os.ftruncate(self._handle, self.size)
        os.fsync(self._handle)
        verifying.drop_cache(self._handle, 0, 0)
        self.close()
        os.replace(self.part, self.place)
        self.note_proven()
        return found

    def note_proven(self) -> None:
        """Write down that the file under its final name is proven as it now stands."""
        note = {"proven": verifying.lasting(os.lstat(self.place))}
        claims.write(self.place + ".json", json.dumps(note).encode(), 0o600)

    def drop(self) -> None:
        """Forget all that has arrived."""
        self.close()
        self.done = []
        self._hash = verifying.hasher(self.oid, self.size)
        self._hashed = self._dropped = 0
        for path in (self.part, self.place + ".json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def close(self) -> None:
        """Let go of the file, once nobody writes to it."""
        with self.lock:
            handle, self._handle = self._handle, -1
            self.lock.wait_for(lambda: self._users == 0)
        if handle >= 0:
            os.close(handle)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pairs(value: Any) -> Ranges:
    if not isinstance(value, list):
        return []
    return [(each[0], each[1]) for each in value if isinstance(each, list) and [type(n) for n in each] == [int, int]]


def make_store() -> None:
    """The content store in the working directory. Raises Refused where something else stands there."""
    for path in (".sparkops", STORE):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        if os.path.islink(path) or not os.path.isdir(path):
            raise Refused(f"{path} in the staging folder is no folder", hint="remove the staging folder")
