"""A checkpoint as the base of a build: its files through one open folder, verified, and their headers.

It must not know what is built.
"""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from functools import partial

from sparkops.core.descriptors import FILE
from sparkops.core.messages import Refused
from sparkops.programs.build.tensor_plan import PlannedTensor, Stored
from sparkops.programs.checkpoints.folder import Files
from sparkops.programs.checkpoints.index import files_below
from sparkops.programs.checkpoints.proof import identity
from sparkops.programs.fetch.existing import hash_unchanged
from sparkops.programs.parallel import on_all_cores
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output
from sparkops.safetensors.header import Broken, Header, read_header

INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
LARGEST_JSON = 256 << 20
"""Bytes of the largest index or config.json that is read."""
NAMED = 3
"""Tensors that an error names."""


class Base:
    """The folder behind the descriptor `folder`. `files` is its manifest; without one, all files in it.

    `sizes` and `oids` by path (no oid where there is no manifest). `label` is what errors call it.
    """

    def __init__(self, folder: int, files: Files, label: str = "base") -> None:
        self.folder, self.label = folder, label
        self.oids: dict[str, str] = {str(path): str(oid) for path, _, oid in files}
        self.sizes: dict[str, int] = {str(path): int(size) for path, size, _ in files}
        if not self.sizes:
            self.sizes = {
                path: status.st_size
                for path, status in files_below(folder)
                if stat.S_ISREG(status.st_mode) and not path.startswith(".sparkops/")
            }
        self._open: dict[str, int] = {}

    def open(self, path: str) -> int:
        """A descriptor for reading. Raises Refused where it is not the file that it has to be."""
        if path not in self._open:
            try:
                handle = os.open(path, FILE, dir_fd=self.folder)
            except OSError as error:
                raise self._error("checkpoint-file-unreadable", path, text=error.strerror or str(error)) from None
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self.sizes[path]:
                os.close(handle)
                raise self._error("checkpoint-file-size", path, size=status.st_size, expected=self.sizes[path])
            self._open[path] = handle
        return self._open[path]

    def read(self, path: str, start: int, count: int) -> bytes:
        """Exactly so many bytes of a file."""
        data = os.pread(self.open(path), count, start)
        if len(data) != count:
            raise self._error("checkpoint-file-changed", path)
        return data

    def verify(self, known: dict[str, str], output: Output) -> None:
        """Hash what `known` (oid by identity) does not have. Raises Refused for other content."""
        unknown = []
        for path, oid in self.oids.items():
            found = known.get(identity(os.fstat(self.open(path))))
            if found is None or found.partition(":")[0] != oid.partition(":")[0]:
                unknown.append(path)
            else:
                self._require(path, found)
        tracker = Tracker(output, "verifying the base", sum(self.sizes[path] for path in unknown))

        def verify(path: str) -> None:
            found = hash_unchanged(self.open(path), self.oids[path], self.sizes[path], tracker, output)
            if not found:
                raise self._error("checkpoint-file-changed", path)
            self._require(path, found)

        on_all_cores(verify, unknown)

    def _require(self, path: str, found: str) -> None:
        if found != self.oids[path]:
            raise self._error("checkpoint-file-damaged", path, found=found, expected=self.oids[path])

    def json(self, path: str) -> dict[str, object]:
        """A JSON object in it. Raises Refused."""
        if path not in self.sizes:
            raise self._error("checkpoint-file-missing", path)
        return parsed(self.read(path, 0, min(self.sizes[path], LARGEST_JSON + 1)), path, self.label)

    def tensors(self) -> "tuple[dict[str, list[PlannedTensor]], dict[str, dict[str, str]]]":
        """The entries and the free metadata of each safetensors file. Raises Refused for a faulty checkpoint."""
        files: dict[str, list[PlannedTensor]] = {}
        metadata: dict[str, dict[str, str]] = {}
        for path in sorted(each for each in self.sizes if each.endswith(".safetensors")):
            header = head_of(partial(self.read, path), self.sizes[path], path, self.label)
            metadata[path] = header.metadata
            files[path] = list(entries(header, -1, path))
        if not files:
            raise Refused.of("checkpoint-without-safetensors", checkpoint=self.label)
        require_unique(files, self.label)
        self._check_index(files)
        return files, metadata

    def _check_index(self, files: dict[str, list[PlannedTensor]]) -> None:
        if INDEX not in self.sizes:
            if len(files) > 1:
                raise self._error("checkpoint-index-missing", INDEX, shards=len(files))
            return
        listed = self.json(INDEX).get("weight_map")
        if not isinstance(listed, dict):
            raise self._error("checkpoint-index-invalid", INDEX)
        absent = set(listed)
        for path, all_ in files.items():
            for entry in all_:
                if listed.get(entry.name) != path:
                    id = "checkpoint-index-mismatch" if path in listed.values() else "checkpoint-shard-not-in-index"
                    other = str(listed.get(entry.name, "no file"))
                    raise self._error(id, INDEX, listed=other, tensor=entry.name, file=path)
                absent.discard(entry.name)
        if absent:
            some = sorted(absent)[:NAMED]
            raise self._error("checkpoint-tensors-missing", INDEX, count=len(absent), tensors=some)

    def _error(self, id: str, path: str, **args: object) -> Refused:
        return Refused(id, {"checkpoint": self.label, "path": path, **args})


def head_of(read: Callable[[int, int], bytes], size: int, path: str, checkpoint: str) -> Header:
    """The header of a file. Raises Refused."""
    try:
        return read_header(read, size)
    except Broken as error:
        raise Refused.of("safetensors-invalid", checkpoint=checkpoint, path=path, text=str(error)) from None


def entries(header: Header, origin: int, path: str) -> "Iterator[PlannedTensor]":
    """A header's tensors as they are in their file. Equal strings are stored once: a checkpoint has 300,000."""
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for each in header.tensors:
        shape = shapes.setdefault(each.shape, each.shape)
        content = Stored(origin, path, header.data + each.start, header.data + each.end)
        yield PlannedTensor(each.name, sys.intern(each.dtype), shape, content)


def require_unique(files: dict[str, list[PlannedTensor]], checkpoint: str) -> None:
    """Raises Refused where a tensor is in two files."""
    seen: dict[str, str] = {}
    for path, all_ in files.items():
        for entry in all_:
            if entry.name in seen:
                raise Refused.of(
                    "checkpoint-tensor-duplicate",
                    checkpoint=checkpoint,
                    tensor=entry.name,
                    first=seen[entry.name],
                    second=path,
                )
            seen[entry.name] = path


def parsed(data: bytes, path: str, checkpoint: str) -> dict[str, object]:
    """A JSON object. Raises Refused."""
    try:
        value = json.loads(data) if len(data) <= LARGEST_JSON else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused.of("checkpoint-json-invalid", checkpoint=checkpoint, path=path)
    return value
