"""Write a draft's safetensors files: stored ranges copied, made ones computed, all hashed on their way.

Several processes at it; each has one chunk of one file in memory. It must not know where the files will stand.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

from sparkops.programs.build.process_pool import Crew, Hear
from sparkops.programs.build.tensor_plan import Entry, Made, Read, Stored
from sparkops.programs.checkpoints import hashes
from sparkops.safetensors.header import BITS, head
from sparkops.worker.calls import Refused

CHUNK = 256 << 10
"""Bytes that are read, hashed and written in one go: what the processor's own cache holds twice (bench/building.py)."""
WAITING = 2
"""Processes more than there are cores: some wait for the disk."""
TOLD = 4 << 20
"""Bytes after which a process tells how far it is."""
SYNC = 256 << 20
"""Bytes after which what was written is sent to the disk and its pages given back."""

Descriptor = Callable[[Stored], int]
"""Where a stored entry's bytes can be read, at their offsets."""


class Output:
    """One file to write. `metadata` is the header's free part; `part` the path that it is written to."""

    def __init__(self, path: str, entries: list[Entry], metadata: dict[str, str], part: str) -> None:
        self.path, self.part = path, part
        self.entries = ordered(entries)
        self._metadata = metadata
        self._sizes = sum(entry.size for entry in entries)
        self.size = len(self.head()) + self._sizes

    def head(self) -> bytes:
        """What stands before the first tensor."""
        return head(((each.name, each.dtype, each.shape, each.size) for each in self.entries), self._metadata)

    def pieces(self) -> "Iterator[tuple[int, Stored | Entry]]":
        """The file in order: where each piece begins, and a stored range (neighbours joined) or a made entry."""
        position = self.size - self._sizes
        joined: Stored | None = None
        for entry in self.entries:
            content = entry.content
            if isinstance(content, Stored) and joined is not None and _follows(joined, content):
                joined.end = content.end
                continue
            if joined is not None:
                yield position, joined
                position += joined.end - joined.start
                joined = None
            if isinstance(content, Stored):
                joined = Stored(content.origin, content.path, content.start, content.end)
            else:
                yield position, entry
                position += entry.size
        if joined is not None:
            yield position, joined

    def blocks(self) -> list[tuple[int, Entry, int, int]]:
        """Every block that has to be made: where it goes, its entry, and its place in that."""
        return [
            (position + start, piece, start, end)
            for position, piece in self.pieces()
            if isinstance(piece, Entry) and isinstance(piece.content, Made)
            for start, end in piece.content.blocks()
        ]


def ordered(entries: list[Entry]) -> list[Entry]:
    """The widest dtypes first, so that each tensor begins at a multiple of its values' width."""
    return sorted(entries, key=lambda each: -BITS[each.dtype])


def _follows(one: Stored, other: Stored) -> bool:
    return (one.origin, one.path, one.end) == (other.origin, other.path, other.start)


class Writing:
    """Write `outputs`; `done(output, oid)` hears of each that stands complete, on disk, under its `part` name."""

    def __init__(self, outputs: list[Output], where: Descriptor, read: "Callable[[Entry, int, int], bytes]") -> None:
        self._outputs, self._where, self._read = outputs, where, read
        self._tasks: list[Any] = []
        self._ready: list[int] = []
        self._left = [0] * len(outputs)
        for number, output in enumerate(outputs):
            made = output.blocks()
            self._left[number] = len(made)
            self._tasks += [(number, *block) for block in made]
        self._blocks = len(self._tasks)
        self._tasks += [(number,) for number in range(len(outputs))]
        self._next = 0

    @property
    def total(self) -> int:
        """Bytes that `hear` of `run` will have heard of at the end: made ones count twice, as they are also hashed."""
        made: int = sum(task[4] - task[3] for task in self._tasks[: self._blocks])
        return made + sum(output.size for output in self._outputs)

    def run(self, done: Callable[[Output, str], None], hear: Hear, check: Callable[[], None]) -> None:
        """Write them all. Raises Refused, OSError."""
        self._ready = [number for number, left in enumerate(self._left) if not left]
        for output in self._outputs:
            os.close(os.open(output.part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))

        def finished(task: int, result: Any) -> None:
            number: int = self._tasks[task][0]
            if task >= self._blocks:
                done(self._outputs[number], result)
                return
            self._left[number] -= 1
            if not self._left[number]:
                self._ready.append(number)

        crew = Crew(min((os.cpu_count() or 1) + WAITING, len(self._tasks)), self._do)
        try:
            crew.run(self._take, finished, hear, check)
        finally:
            crew.close()

    def _take(self) -> int | None:
        """Files that are ready go first, so that what was just made is still in memory when it is hashed."""
        if self._ready:
            return self._blocks + self._ready.pop(0)
        if self._next < self._blocks:
            self._next += 1
            return self._next - 1
        return None

    def _do(self, task: int, hear: Hear) -> str:
        number, *block = self._tasks[task]
        output = self._outputs[number]
        handle = os.open(output.part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if block:
                self._make(handle, *block)
                hear(block[3] - block[2])
                return ""
            return self._finish(handle, output, hear)
        finally:
            os.close(handle)

    def _make(self, handle: int, position: int, entry: Entry, start: int, end: int) -> None:
        content = entry.content
        assert isinstance(content, Made)
        data = content.block(start, end, self._reader(content))
        if len(data) != end - start:
            raise RuntimeError(f"{entry.name}: {len(data)} bytes were made for {start} to {end}")
        write(handle, data, position)

    def _reader(self, content: Made) -> Read:
        return lambda number, start, count: self._read(content.inputs[number], start, count)

    def _finish(self, handle: int, output: Output, hear: Hear) -> str:
        made = hashes.Hasher("sha256:", output.size)
        beginning = output.head()
        made.update(beginning)
        write(handle, beginning, 0)
        hear(len(beginning))
        buffer = memoryview(bytearray(CHUNK))
        synced = told = 0
        for begin, piece in output.pieces():
            stored = isinstance(piece, Stored)
            source = self._where(piece) if isinstance(piece, Stored) else handle
            position, left = (
                (piece.start, piece.end - piece.start) if isinstance(piece, Stored) else (begin, piece.size)
            )
            while left:
                got = os.preadv(source, [buffer[: min(CHUNK, left)]], position)
                if not got:
                    raise Refused(f"what {output.path} is made of became shorter", hint="run apply again")
                chunk = buffer[:got]
                made.update(chunk)
                if stored:
                    write(handle, chunk, begin)
                begin, position, left, told = begin + got, position + got, left - got, told + got
                if told >= TOLD:
                    hear(told)
                    told = 0
                if begin - synced >= SYNC:
                    synced = _give_back(handle, synced, begin)
            if isinstance(piece, Stored):
                hashes.drop_cache(source, piece.start, piece.end - piece.start)
        hear(told)
        os.fsync(handle)
        hashes.drop_cache(handle, 0, 0)
        return made.oid


def _give_back(handle: int, start: int, end: int) -> int:
    os.fdatasync(handle)
    hashes.drop_cache(handle, start, end - start)
    return end


def write(handle: int, data: "bytes | memoryview", position: int) -> None:
    """All of `data` at its position."""
    view = memoryview(data)
    while view:
        wrote = os.pwrite(handle, view, position)
        view, position = view[wrote:], position + wrote
