"""Contents that are arriving: the ranges that are complete, a journal of them, and the hash that follows.

A content is known by its oid; its part is `.sparkops/content/OID.part` in the staging folder (the working directory)
with the journal `OID.json` beside it, so that a later run, also for another revision, resumes it. Once verified it is
called `OID`. It must not know where the bytes come from.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence

from sparkops.core import atomic
from sparkops.core.descriptors import FOLDER, closing, write
from sparkops.core.messages import Refused
from sparkops.programs.checkpoints import hashes, local_sources
from sparkops.programs.checkpoints.proof import lasting

STORE = ".sparkops/content"
BLOCK = 1 << 20
"""Bytes that are hashed at once: they fit the processor's cache."""
SPAN_TRIES = 2
"""How often a damaged span is fetched alone; then its prefix digest is distrusted and the whole is fetched."""

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


def _without(part: tuple[int, int], start: int, end: int) -> Ranges:
    """A range without `start` to `end`."""
    return [each for each in ((part[0], min(part[1], start)), (max(part[0], end), part[1])) if each[1] > each[0]]


class Content:
    """One content in the staging folder. Threads write ranges of it, one of them at a time hashes what joined up."""

    partial = False
    """Whether only ranges of it are wanted, so that an answer with the whole file is no answer."""

    def __init__(self, oid: str, size: int, prefixes: Sequence[str] = ()) -> None:
        """`prefixes` are the digests at the ends of its spans but the last, where they are known."""
        self.oid = oid
        self.size = size
        self.lacking = 0
        """Bytes that were not there, or damaged, since it was opened."""
        self._damaged: dict[int, int] = {}
        known = prefixes and len(prefixes) == (size - 1) // hashes.SPAN
        self._expected = [*prefixes, oid.partition(":")[2]] if known else []
        self._claimed = False
        self.place = os.path.join(STORE, oid.replace(":", "-"))
        self.lock = threading.Condition()
        self.done: Ranges = []
        self._users = 0
        self._hashing = threading.Lock()
        self._hash = hashes.Hasher(oid, size)
        self._dropped = 0
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
        note = atomic.mapping(self.place + ".json")
        try:
            return note.get("proven") == lasting(os.lstat(self.place))
        except FileNotFoundError:
            return False

    def open(self) -> None:
        """Take up what an earlier run left."""
        note = atomic.mapping(self.place + ".json")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._handle = os.open(self.part, flags, 0o644)
        length = os.fstat(self._handle).st_size
        for start, end in _pairs(note.get("done")):
            if 0 <= start < end <= min(self.size, length):
                self.done = merged(self.done, start, end)
        self.lacking = sum(end - start for start, end in self.missing())
        self._claimed = False

    @property
    def repairable(self) -> bool:
        """Whether damage is found span by span: its prefix digests are known and were right so far."""
        return bool(self._expected)

    def copy_from(self, handle: int, report: Callable[[int], None]) -> None:
        """Begin with the bytes of an open file that is damaged or cut off: where they are right, nothing is fetched.

        They are copied, so that the file itself stays as it is. `report` gets the bytes copied, may raise to stop.
        """
        count = min(self.size, os.fstat(handle).st_size)
        with closing(os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)) as writing:
            local_sources.copy(handle, writing, count, report)
            os.fdatasync(writing)
        self._journal([(0, count)] if count else [])

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
        with self._using() as handle:
            write(handle, data, position)

    def mark(self, start: int, end: int) -> bool:
        """Bytes from `start` to `end` are there; noted on disk where more is to come. True for who completes it."""
        with self._using() as handle:
            if end - start < self.size:
                os.fdatasync(handle)
            with self.lock:
                before = self.missing()
                self.done = merged(self.done, start, end)
                complete = not self.missing()
                if not complete or self.partial:
                    self._journal(self.done)
                return bool(before) and complete

    def _journal(self, done: Ranges) -> None:
        atomic.write(self.place + ".json", json.dumps({"done": done}).encode(), 0o600)

    def follow(self, wait: bool = False) -> Ranges:
        """Hash on, as far as the bytes have joined up from the start; without `wait`, leave it to who is at it.

        Returns the spans that turned out to be damaged: they count as not there, the hash goes on when they are again.
        """
        if not self._hashing.acquire(blocking=wait):
            return []
        found: Ranges = []
        block = memoryview(bytearray(BLOCK))
        try:
            while (at := self._hash.position) < (end := self._joined()):
                until = min(end, at - at % hashes.SPAN + hashes.SPAN)
                size = os.preadv(self._handle, [block[: until - at]], at)
                if not size:
                    raise OSError(5, "bytes that were written can't be read", self.part)
                self._hash.update(block[:size])
                found += self._check(at + size)
                self._give_back()
        finally:
            self._hashing.release()
        return found

    def _check(self, position: int) -> Ranges:
        """At the end of a span with a known prefix digest: the span where it is another, which is taken back."""
        if not self._expected or (position % hashes.SPAN and position < self.size):
            return []
        number = (position - 1) // hashes.SPAN
        if self._hash.oid.partition(":")[2] == self._expected[number]:
            return []
        self._damaged[number] = self._damaged.get(number, 0) + 1
        if self._damaged[number] > SPAN_TRIES:
            self._expected = []
            return []
        start = number * hashes.SPAN
        self.lacking += position - start
        self._hash.rewind(number)
        with self.lock:
            self.done = [part for each in self.done for part in _without(each, start, position)]
        return [(start, position)]

    def whole(self) -> bool:
        """Whether all is there and hashed; True once, for the one who then proves it."""
        with self.lock:
            if self._claimed or self._handle < 0 or self._hash.position < self.size:
                return False
            self._claimed = True
            return True

    @property
    def prefixes(self) -> list[str]:
        """The prefix digests of what was hashed."""
        return self._hash.prefixes

    def _joined(self) -> int:
        with self.lock:
            return self.done[0][1] if self.done and self.done[0][0] == 0 else 0

    def _give_back(self) -> None:
        if self._hash.position - self._dropped >= hashes.DROP:
            os.fdatasync(self._handle)
            hashes.drop_cache(self._handle, self._dropped, self._hash.position - self._dropped)
            self._dropped = self._hash.position

    def prove(self) -> str:
        """Compare the finished hash; the proven file gets its name. Returns the oid found (another one: dropped)."""
        found = self._hash.oid
        if found != self.oid:
            self.drop()
            return found
        os.ftruncate(self._handle, self.size)
        os.fsync(self._handle)
        hashes.drop_cache(self._handle, 0, 0)
        self.close()
        os.replace(self.part, self.place)
        self.note_proven()
        return found

    def note_proven(self) -> None:
        """Write down that the file under its final name is proven as it now stands."""
        note = {"proven": lasting(os.lstat(self.place))}
        atomic.write(self.place + ".json", json.dumps(note).encode(), 0o600)

    def drop(self) -> None:
        """Forget all that has arrived."""
        self.close()
        self.done = []
        self._hash = hashes.Hasher(self.oid, self.size)
        self._dropped = 0
        self._claimed = False
        for path in (self.part, self.place + ".json"):
            atomic.remove(path)

    def close(self) -> None:
        """Let go of the file, once nobody writes to it."""
        with self.lock:
            handle, self._handle = self._handle, -1
            self.lock.wait_for(lambda: self._users == 0)
        if handle >= 0:
            os.close(handle)


def _pairs(value: object) -> Ranges:
    if not isinstance(value, list):
        return []
    return [(each[0], each[1]) for each in value if isinstance(each, list) and [type(n) for n in each] == [int, int]]


def open_store(staging: int) -> int:
    """The content store in an open staging folder, made where it is lacking, as that folder's owner's.

    No link is followed on the way.
    """
    owner, at = os.fstat(staging), os.dup(staging)
    for part in STORE.split("/"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=at)
        inner = os.open(part, FOLDER, dir_fd=at)
        os.close(at)
        at = inner
        if os.getuid() == 0:
            os.fchown(at, owner.st_uid, owner.st_gid)
    return at


def make_store() -> None:
    """The content store in the working directory. Raises Refused where something else stands there."""
    for path in (".sparkops", STORE):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
        if os.path.islink(path) or not os.path.isdir(path):
            raise Refused.of("staging-not-ours", path=os.path.abspath(path))
