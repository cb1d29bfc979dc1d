"""What a build takes from another checkpoint: its headers and the bytes of chosen tensors, fetched by ranges.

What arrives is stored in a sparse *mirror* of the donor's file in the content store, with a journal, so that a killed
build fetches nothing twice. A range cannot be verified by the whole file's sha256: a build relies on the size that the
server reports, which must be the manifest's, and on its checks, which compare the numbers with the base's.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from sparkops.core.descriptors import FILE
from sparkops.core.messages import Refused
from sparkops.programs.build.base import CONFIG, entries, head_of, parsed, require_unique
from sparkops.programs.build.spec import Repository
from sparkops.programs.build.tensor_plan import DonorTensors, PlannedTensor
from sparkops.programs.fetch import download
from sparkops.programs.fetch.http import Hub
from sparkops.programs.fetch.partial_file import Content, Ranges, gaps, merged
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output
from sparkops.safetensors.header import LENGTH, Broken, header_length
from sparkops.safetensors.parts import part_of

SPARE = 0.06
"""Share of the needed bytes that may be fetched in vain to save requests: with the headers it stays under a tenth.

Calculated for FP8 donors of 122B and 397B: their headers are 2.3 and 3.4 % of the shared experts that a hybrid takes.
"""
WIDEST = 4 << 20
"""Bytes of the widest gap that is fetched rather than left out."""


class Mirror(Content):
    """Some ranges of a donor's file, each at its own place in a sparse file."""

    partial = True

    def __init__(self, oid: str, size: int) -> None:
        super().__init__(oid, size)
        self.wanted: Ranges = []
        self._reading = -1

    @property
    def arrived(self) -> int:
        """Bytes of what is wanted that are there."""
        return length(self.wanted) - length(self.missing())

    def missing(self) -> Ranges:
        return within(gaps(self.done, self.size), self.wanted)

    def follow(self, wait: bool = False) -> Ranges:
        """There is no hash of a part."""
        return []

    def whole(self) -> bool:
        with self.lock:
            if self._claimed or self.missing():
                return False
            self._claimed = True
            return True

    def prove(self) -> str:
        """A part has no hash."""
        self.close()
        return self.oid

    def read(self, start: int, count: int) -> bytes:
        """Bytes that have arrived; fewer where they have not."""
        if within(gaps(self.done, self.size), [(start, start + count)]):
            return b""
        if self._reading < 0:
            self._reading = os.open(self.part, FILE)
        return os.pread(self._reading, count, start)

    def descriptor(self) -> int:
        """For reading what has arrived."""
        self.read(0, 0)
        return self._reading


class DonorRepository:
    """One donor of the spec, number `origin` of the plan's."""

    def __init__(self, origin: int, spec: Repository, options: dict[str, Any], output: Output, name: str = "") -> None:
        self.origin, self._output = origin, output
        self.label = f"{spec['repository']}@{spec['commit'][:12]}"
        self._name = name or f"donor {self.label}"
        self._hub = Hub(**{**spec["hub"], "repository": spec["repository"], "commit": spec["commit"]})
        self._options = download.Options(**options)
        self._files: dict[str, tuple[int, str]] = {
            str(path): (int(size), str(oid)) for path, size, oid in spec["files"]
        }
        self.mirrors = {
            path: Mirror(oid, size) for path, (size, oid) in self._files.items() if path.endswith(".safetensors")
        }

    def tensors(self) -> DonorTensors:
        """Its config.json, and its tensors but for the routed experts of its main layers, which no step takes."""
        if not self.mirrors or CONFIG not in self._files:
            id = "checkpoint-file-missing" if self.mirrors else "checkpoint-without-safetensors"
            raise Refused.of(id, checkpoint=self._name, path=CONFIG)
        config = self._config()
        self.fetch({path: [(0, min(LENGTH, mirror.size))] for path, mirror in self.mirrors.items()}, "asking")
        self.fetch({path: [(0, self._head(path))] for path in self.mirrors}, "reading headers of")
        files: dict[str, list[PlannedTensor]] = {}
        for path, mirror in self.mirrors.items():
            header = head_of(mirror.read, mirror.size, path, self._name)
            files[path] = [each for each in entries(header, self.origin, path) if part_of(each.name) != "experts"]
        require_unique(files, self._name)
        found = {each.name: each for all_ in files.values() for each in all_}
        return DonorTensors(self.label, found, config)

    def headers(self, paths: Iterable[str]) -> Iterator[tuple[str, str, int]]:
        """Path, where it is stored, and bytes of each weights' file (its header alone) and of those of `paths`."""
        self.tensors()
        for path, mirror in self.mirrors.items():
            yield path, mirror.part, mirror.size
        for path in filter(self._files.__contains__, paths):
            yield path, self._whole(path), self._files[path][0]

    def _config(self) -> dict[str, object]:
        with open(self._whole(CONFIG), "rb") as file:
            return parsed(file.read(), CONFIG, self._name)

    def _whole(self, path: str) -> str:
        """Where a small file is stored, fetched if it is not there yet."""
        size, oid = self._files[path]
        content = Content(oid, size)
        if not content.proven():
            self._run([(content, path)], Tracker(self._output, f"fetching {path} of {self.label}", size))
        return content.place

    def _head(self, path: str) -> int:
        try:
            return min(self.mirrors[path].size, LENGTH + header_length(self.mirrors[path].read(0, LENGTH)))
        except Broken as error:
            raise Refused.of("safetensors-invalid", checkpoint=self._name, path=path, text=str(error)) from None

    def fetch(self, wanted: dict[str, Ranges], verb: str) -> None:
        """Fetch these ranges, with the narrow gaps between them where that saves requests."""
        for path, ranges in coalesced(wanted).items():
            mirror = self.mirrors[path]
            mirror.wanted = ranges
            if not mirror.done:
                mirror.open()
                mirror.close()
        need = [(mirror, path) for path, mirror in self.mirrors.items() if path in wanted and mirror.missing()]
        if need:
            total = sum(length(mirror.wanted) for mirror, _ in need)
            self._run(need, Tracker(self._output, f"{verb} {self.label}", total))

    def _run(self, need: "Iterable[tuple[Content, str]]", tracker: Tracker) -> None:
        download.Fetch(self._hub, self._options, tracker.add, self._output.check).run(list(need))

    def missing(self, wanted: dict[str, Ranges]) -> int:
        """Bytes that `fetch` would have to ask for."""
        return sum(length(within(gaps(self.mirrors[path].done, self.mirrors[path].size), ranges))
                   for path, ranges in coalesced(wanted).items())  # fmt: skip

    def read(self, path: str, start: int, count: int) -> bytes:
        """Exactly so many bytes of a file, fetched where they are not here yet."""
        data = self.mirrors[path].read(start, count)
        if len(data) != count:
            self.fetch({path: [(start, start + count)]}, "reading")
            data = self.mirrors[path].read(start, count)
        return data

    @property
    def fetched(self) -> int:
        """Bytes of its weights' files that are here, headers included."""
        return sum(length(mirror.done) for mirror in self.mirrors.values())

    def drop(self) -> None:
        """Forget all that was fetched: it is wrong."""
        for mirror in self.mirrors.values():
            mirror.drop()


def coalesced(wanted: dict[str, Ranges], spare: float = SPARE) -> dict[str, Ranges]:
    """The ranges with the narrowest gaps between them closed, at most `spare` of the wanted bytes in all."""
    joined: dict[str, Ranges] = {}
    for path, ranges in wanted.items():
        joined[path] = []
        for start, end in sorted(ranges):
            joined[path] = merged(joined[path], start, end)
    holes = sorted(
        (after[0] - before[1], path, before[1], after[0])
        for path, ranges in joined.items()
        for before, after in itertools.pairwise(ranges)
    )
    left = int(spare * sum(length(ranges) for ranges in joined.values()))
    for width, path, start, end in holes:
        if width > min(left, WIDEST):
            break
        left -= width
        joined[path] = merged(joined[path], start, end)
    return joined


def length(ranges: Ranges) -> int:
    """Bytes in ranges that are apart from each other."""
    return sum(end - start for start, end in ranges)


def within(ranges: Ranges, others: Ranges) -> Ranges:
    """What is in both."""
    both = ((max(a, c), min(b, d)) for a, b in ranges for c, d in others)
    return [(start, end) for start, end in both if end > start]
