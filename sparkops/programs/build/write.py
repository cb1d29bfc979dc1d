"""Write a plan's safetensors files: stored ranges are copied, computed ones computed, all is hashed on the way.

Several processes do it; each has one chunk of one file in memory. It must not know where the files will be published.
"""

import os
from collections.abc import Callable, Iterator

from sparkops.core.descriptors import closing, write
from sparkops.core.messages import Refused
from sparkops.programs.build.process_pool import OnProgress, ProcessPool
from sparkops.programs.build.tensor_plan import Computed, PlannedTensor, Read, Stored
from sparkops.programs.checkpoints import hashes
from sparkops.safetensors.header import BITS, head

CHUNK = 256 << 10
"""Bytes that are read, hashed and written in one go: what the processor's own cache holds twice (bench/building.py)."""
WAITING = 2
"""Processes more than there are cores: some wait for the disk."""
REPORT = 4 << 20
"""Bytes after which a process reports its progress."""
SYNC = 256 << 20
"""Bytes after which what was written is sent to the disk and its pages given back."""

Descriptor = Callable[[Stored], int]
"""Where a stored entry's bytes can be read, at their offsets."""


class OutputFile:
    """One file to write. `metadata` is the header's free part; `part` the path that it is written to."""

    def __init__(self, path: str, entries: list[PlannedTensor], metadata: dict[str, str], part: str) -> None:
        self.path, self.part = path, part
        self.entries = ordered(entries)
        self._metadata = metadata
        self._sizes = sum(entry.size for entry in entries)
        self.size = len(self.head()) + self._sizes

    def head(self) -> bytes:
        """The bytes before the first tensor."""
        return head(((each.name, each.dtype, each.shape, each.size) for each in self.entries), self._metadata)

    def pieces(self) -> "Iterator[tuple[int, Stored | PlannedTensor]]":
        """The file in order: where each piece begins, and a stored range (neighbours joined) or a computed tensor."""
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

    def blocks(self) -> list[tuple[int, PlannedTensor, int, int]]:
        """Every block that has to be computed: its position in the file, its tensor, start and end in that."""
        return [
            (position + start, piece, start, end)
            for position, piece in self.pieces()
            if isinstance(piece, PlannedTensor) and isinstance(piece.content, Computed)
            for start, end in piece.content.blocks()
        ]


def ordered(entries: list[PlannedTensor]) -> list[PlannedTensor]:
    """The widest dtypes first, so that each tensor begins at a multiple of its values' width."""
    return sorted(entries, key=lambda each: -BITS[each.dtype])


def _follows(one: Stored, other: Stored) -> bool:
    return (one.origin, one.path, one.end) == (other.origin, other.path, other.start)


class FileWriter:
    """Write `outputs`; `done(output, oid)` is called for each that is complete, on the disk, by its `part` name."""

    def __init__(
        self, outputs: list[OutputFile], where: Descriptor, read: "Callable[[PlannedTensor, int, int], bytes]"
    ) -> None:
        self._outputs, self._where, self._read = outputs, where, read
        self._blocks: list[tuple[int, int, PlannedTensor, int, int]] = []
        self._ready: list[int] = []
        self._left = [0] * len(outputs)
        for number, output in enumerate(outputs):
            made = output.blocks()
            self._left[number] = len(made)
            self._blocks += [(number, *block) for block in made]
        self._next = 0

    @property
    def total(self) -> int:
        """Bytes that `on_progress` of `run` gets in all: computed ones count twice, as they are also hashed."""
        made = sum(end - start for *_, start, end in self._blocks)
        return made + sum(output.size for output in self._outputs)

    def run(self, done: Callable[[OutputFile, str], None], on_progress: OnProgress, check: Callable[[], None]) -> None:
        """Write them all. Raises Refused, OSError."""
        self._ready = [number for number, left in enumerate(self._left) if not left]
        for output in self._outputs:
            os.close(os.open(output.part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))

        def finished(task: int, result: object) -> None:
            if task >= len(self._blocks):
                done(self._outputs[task - len(self._blocks)], str(result))
                return
            number = self._blocks[task][0]
            self._left[number] -= 1
            if not self._left[number]:
                self._ready.append(number)

        pool = ProcessPool(min((os.cpu_count() or 1) + WAITING, len(self._blocks) + len(self._outputs)), self._do)
        try:
            pool.run(self._take, finished, on_progress, check)
        finally:
            pool.close()

    def _take(self) -> int | None:
        """Files that are ready go first: what was just computed is still in memory when it is hashed."""
        if self._ready:
            return len(self._blocks) + self._ready.pop(0)
        if self._next < len(self._blocks):
            self._next += 1
            return self._next - 1
        return None

    def _do(self, task: int, on_progress: OnProgress) -> str:
        block = self._blocks[task] if task < len(self._blocks) else None
        output = self._outputs[block[0] if block else task - len(self._blocks)]
        with closing(os.open(output.part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)) as handle:
            if block:
                self._make(handle, *block[1:])
                on_progress(block[4] - block[3])
                return ""
            return self._finish(handle, output, on_progress)

    def _make(self, handle: int, position: int, entry: PlannedTensor, start: int, end: int) -> None:
        content = entry.content
        assert isinstance(content, Computed)
        data = content.block(start, end, self._reader(content))
        if len(data) != end - start:
            raise RuntimeError(f"{entry.name}: {len(data)} bytes were computed for {start} to {end}")
        write(handle, data, position)

    def _reader(self, content: Computed) -> Read:
        return lambda number, start, count: self._read(content.inputs[number], start, count)

    def _finish(self, handle: int, output: OutputFile, on_progress: OnProgress) -> str:
        hasher = hashes.Hasher("sha256", output.size)
        beginning = output.head()
        hasher.update(beginning)
        write(handle, beginning, 0)
        on_progress(len(beginning))
        buffer = memoryview(bytearray(CHUNK))
        synced = unreported = 0
        for begin, piece in output.pieces():
            stored = isinstance(piece, Stored)
            source = self._where(piece) if isinstance(piece, Stored) else handle
            position, left = (
                (piece.start, piece.end - piece.start) if isinstance(piece, Stored) else (begin, piece.size)
            )
            while left:
                got = os.preadv(source, [buffer[: min(CHUNK, left)]], position)
                if not got:
                    raise Refused.of("checkpoint-file-changed", checkpoint="input", path=output.path)
                chunk = buffer[:got]
                hasher.update(chunk)
                if stored:
                    write(handle, chunk, begin)
                begin, position, left = begin + got, position + got, left - got
                unreported += got
                if unreported >= REPORT:
                    on_progress(unreported)
                    unreported = 0
                if begin - synced >= SYNC:
                    synced = _give_back(handle, synced, begin)
            if isinstance(piece, Stored):
                hashes.drop_cache(source, piece.start, piece.end - piece.start)
        on_progress(unreported)
        os.fsync(handle)
        hashes.drop_cache(handle, 0, 0)
        return hasher.oid


def _give_back(handle: int, start: int, end: int) -> int:
    os.fdatasync(handle)
    hashes.drop_cache(handle, start, end - start)
    return end
