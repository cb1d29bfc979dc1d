"""What a build takes from another checkpoint: its headers and the bytes of chosen tensors, fetched by ranges.

What arrives stands in a sparse *mirror* of the donor's file in the content store, with a journal, so that a killed
build asks for nothing twice. A range can't be proven by the whole file's sha256: a build believes the size that the
server tells, which must be the manifest's, and its gates, which hold the numbers against the base.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from typing import Any

from sparkops.programs.build.base import CONFIG, entries, head_of, parsed, unique
from sparkops.programs.build.tensor_plan import Donor, Entry
from sparkops.programs.fetch import download
from sparkops.programs.fetch.http import Hub
from sparkops.programs.fetch.partial_file import Content, Ranges, gaps, merged
from sparkops.safetensors.header import LENGTH, Broken, header_length
from sparkops.safetensors.parts import part_of
from sparkops.worker.calls import Refused
from sparkops.worker.system.progress import Say, Tracker

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
        """Nothing that could be proven."""
        self.close()
        return self.oid

    def read(self, start: int, count: int) -> bytes:
        """Bytes that have arrived; fewer where they have not."""
        if within(gaps(self.done, self.size), [(start, start + count)]):
            return b""
        if self._reading < 0:
            self._reading = os.open(self.part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.pread(self._reading, count, start)

    def descriptor(self) -> int:
        """For reading what has arrived."""
        self.read(0, 0)
        return self._reading


class Source:
    """One donor of the order, number `origin` of the draft's."""

    def __init__(self, origin: int, order: dict[str, Any], manner: dict[str, Any], say: Say, check: Callable[[], None]):
        self.origin, self._say, self._check = origin, say, check
        self.label = f"{order['repository']}@{order['commit'][:12]}"
        self._hub = Hub(**{**order["hub"], "repository": order["repository"], "commit": order["commit"]})
        self._manner = download.Options(**manner)
        self._files: dict[str, tuple[int, str]] = {
            str(path): (int(size), str(oid)) for path, size, oid in order["files"]
        }
        self.mirrors = {
            path: Mirror(oid, size) for path, (size, oid) in self._files.items() if path.endswith(".safetensors")
        }

    def donor(self) -> Donor:
        """Its config.json, and its tensors but for the routed experts of its main layers, which no step takes."""
        if not self.mirrors or CONFIG not in self._files:
            raise Refused(
                f"the donor {self.label} has no {CONFIG if self.mirrors else '.safetensors file'}",
                hint="declare a repository with safetensors weights as the donor",
            )
        config = self._config()
        self.fetch({path: [(0, min(LENGTH, mirror.size))] for path, mirror in self.mirrors.items()}, "asking")
        self.fetch({path: [(0, self._head(path))] for path in self.mirrors}, "reading headers of")
        files: dict[str, list[Entry]] = {}
        for path, mirror in self.mirrors.items():
            header = head_of(mirror.read, mirror.size, f"{path} of the donor {self.label}")
            files[path] = [each for each in entries(header, self.origin, path) if part_of(each.name) != "experts"]
        unique(files, f"the donor {self.label}")
        tensors = {each.name: each for all_ in files.values() for each in all_}
        return Donor(self.label, tensors, config)

    def _config(self) -> dict[str, Any]:
        size, oid = self._files[CONFIG]
        content = Content(oid, size)
        if not content.proven():
            self._run([(content, CONFIG)], Tracker(self._say, self._check, f"asking {self.label}", size))
        with open(content.place, "rb") as file:
            return parsed(file.read(), f"{CONFIG} of the donor {self.label}")

    def _head(self, path: str) -> int:
        try:
            return min(self.mirrors[path].size, LENGTH + header_length(self.mirrors[path].read(0, LENGTH)))
        except Broken as error:
            raise Refused(
                f"{path} of the donor {self.label} is no safetensors file: {error}", hint="declare another revision"
            ) from None

    def fetch(self, wanted: dict[str, Ranges], word: str) -> None:
        """Have these ranges here, with the narrow gaps between them where that saves requests."""
        for path, ranges in coalesced(wanted).items():
            mirror = self.mirrors[path]
            mirror.wanted = ranges
            if not mirror.done:
                mirror.open()
                mirror.close()
        need = [(mirror, path) for path, mirror in self.mirrors.items() if path in wanted and mirror.missing()]
        if need:
            total = sum(length(mirror.wanted) for mirror, _ in need)
            self._run(need, Tracker(self._say, self._check, f"{word} {self.label}", total))

    def _run(self, need: "Iterable[tuple[Content, str]]", tracker: Tracker) -> None:
        download.Fetch(self._hub, self._manner, tracker.add, self._check).run(list(need))

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
        """Forget all that was fetched: it proved wrong."""
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
