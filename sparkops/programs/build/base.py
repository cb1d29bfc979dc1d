"""The base of a build: its files through one open folder, proven, and what their headers say.

It must not know what is built.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sparkops.programs.build.tensor_plan import Entry, Stored
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.index import identity
from sparkops.safetensors.header import Broken, Header, read_header
from sparkops.worker.calls import Refused
from sparkops.worker.system.progress import Say, Tracker

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
LARGEST_JSON = 256 << 20
"""Bytes of the largest index or config.json that is read."""
SHOWN = 5
AGAIN = "run apply again: it proves the base and fetches what is damaged"


class Base:
    """The folder behind the descriptor `folder`. `files` is its manifest; without one, what stands in it.

    `sizes` and `oids` by path (no oid where there is no manifest).
    """

    def __init__(self, folder: int, files: Iterable[Any]) -> None:
        self.folder = folder
        self.oids: dict[str, str] = {str(path): str(oid) for path, _, oid in files}
        self.sizes: dict[str, int] = {str(path): int(size) for path, size, _ in files}
        if not self.sizes:
            self.sizes = dict(_listed(folder))
        self._open: dict[str, int] = {}

    def open(self, path: str) -> int:
        """A descriptor for reading. Raises Refused where it isn't the file that it has to be."""
        if path not in self._open:
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder)
            except OSError as error:
                raise Refused(f"{path} of the base can't be read: {error.strerror}", hint=AGAIN) from None
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.sizes[path]:
                os.close(handle)
                what = f"has {status.st_size} bytes where the manifest says {self.sizes[path]}"
                raise Refused(f"{path} of the base {what}", hint=AGAIN)
            self._open[path] = handle
        return self._open[path]

    def read(self, path: str, start: int, count: int) -> bytes:
        """Exactly so many bytes of a file."""
        data = os.pread(self.open(path), count, start)
        if len(data) != count:
            raise Refused(f"{path} of the base became shorter while it was read", hint=AGAIN)
        return data

    def holds(self, path: str, status: os.stat_result) -> bool:
        """Whether this very file stands in it under that path."""
        return path in self.sizes and os.path.samestat(os.fstat(self.open(path)), status)

    def prove(self, known: dict[str, str], say: Say, check: Callable[[], None]) -> None:
        """Hash what the index of proofs (`known`, oid by identity) doesn't have. Raises Refused for other content."""
        unsure = []
        for path, oid in self.oids.items():
            found = known.get(identity(os.fstat(self.open(path))))
            if found is None or found.partition(":")[0] != oid.partition(":")[0]:
                unsure.append(path)
            elif found != oid:
                raise _damaged(path, found, oid)
        tracker = Tracker(say, check, "verifying the base", sum(self.sizes[path] for path in unsure))

        def prove(path: str) -> None:
            handle, oid = self.open(path), self.oids[path]
            before = identity(os.fstat(handle))
            found = hashes.read_oid(handle, oid, self.sizes[path], tracker.read)
            if identity(os.fstat(handle)) == before:
                say({"hashed": [before, found]})
            if found != oid:
                raise _damaged(path, found, oid)

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            list(pool.map(prove, unsure))

    def json(self, path: str) -> dict[str, Any]:
        """A JSON object that stands in it. Raises Refused."""
        if path not in self.sizes:
            raise Refused(f"the base has no {path}", hint="a build needs a whole checkpoint; fetch it with this file")
        return parsed(self.read(path, 0, min(self.sizes[path], LARGEST_JSON + 1)), f"{path} of the base")

    def tensors(self) -> "tuple[dict[str, list[Entry]], dict[str, dict[str, str]]]":
        """The entries and the free metadata of each safetensors file. Raises Refused for a faulty checkpoint."""
        files: dict[str, list[Entry]] = {}
        metadata: dict[str, dict[str, str]] = {}
        for path in sorted(each for each in self.sizes if each.endswith(".safetensors")):
            header = head_of(partial(self.read, path), self.sizes[path], f"{path} of the base")
            metadata[path] = header.metadata
            files[path] = list(entries(header, -1, path))
        if not files:
            raise Refused("the base holds no .safetensors file", hint="declare a checkpoint in that format")
        unique(files, "the base")
        self._hold_against_index(files)
        return files, metadata

    def _hold_against_index(self, files: dict[str, list[Entry]]) -> None:
        if INDEX not in self.sizes:
            if len(files) > 1:
                raise Refused(f"the base has {len(files)} shards and no {INDEX}", hint="fetch it with its index")
            return
        listed = self.json(INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise Refused(f"{INDEX} of the base has no weight_map", hint="fetch it again")
        absent = set(listed)
        for path, all_ in files.items():
            for entry in all_:
                if listed.get(entry.name) != path:
                    other = str(listed.get(entry.name, "no file"))
                    what = f"names {other!r} for {entry.name}, which stands in {path}"
                    hint = "declare another revision: the index of this one doesn't fit its files"
                    if path not in listed.values():
                        hint = f"declare `only: indexed` to leave out {path}, which the index doesn't name"
                    raise Refused(f"{INDEX} of the base {what}", hint=hint)
                absent.discard(entry.name)
        if absent:
            raise Refused(
                f"{INDEX} of the base names tensors that no file holds: {some(sorted(absent))}",
                hint="declare another revision: this one is not whole",
            )


def head_of(read: Callable[[int, int], bytes], size: int, what: str) -> Header:
    """The header of a file. Raises Refused."""
    try:
        return read_header(read, size)
    except Broken as error:
        raise Refused(f"{what} is no whole safetensors file: {error}", hint=AGAIN) from None


def entries(header: Header, origin: int, path: str) -> "Iterator[Entry]":
    """A header's tensors as they stand in their file. Equal words are kept once: a checkpoint has 300,000 of them."""
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for each in header.tensors:
        shape = shapes.setdefault(each.shape, each.shape)
        content = Stored(origin, path, header.data + each.start, header.data + each.end)
        yield Entry(each.name, sys.intern(each.dtype), shape, content)


def unique(files: dict[str, list[Entry]], what: str) -> None:
    """Raises Refused where a tensor stands in two files."""
    seen: dict[str, str] = {}
    for path, all_ in files.items():
        for entry in all_:
            if entry.name in seen:
                raise Refused(
                    f"{entry.name} of {what} stands twice, in {seen[entry.name]} and in {path}",
                    hint="engines differ in which one they take; declare a revision without this fault",
                )
            seen[entry.name] = path


def parsed(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises Refused."""
    try:
        value = json.loads(data) if len(data) <= LARGEST_JSON else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{what} is no JSON object of a believable size", hint="declare another revision")
    return value


def some(names: "list[str]") -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:160] for name in names[:SHOWN]) + more


def _listed(folder: int) -> "Iterator[tuple[str, int]]":
    for where, folders, files, at in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        if where == "." and ".sparkops" in folders:
            folders.remove(".sparkops")
        for name in files:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield os.path.normpath(os.path.join(where, name)), status.st_size


def _damaged(path: str, found: str, oid: str) -> Refused:
    return Refused(f"{path} of the base holds {found} where the manifest says {oid}", hint=AGAIN)
