"""Which files of a commit a model's index needs: the shards that it names, and all that is no weights.

Pure values. The index is a file from outside: it may only name files of the manifest, and is read in bounded memory.
"""

from __future__ import annotations

from collections.abc import Collection

from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile
from sparkops.safetensors.bounded_json import NotFlat, Reader

INDEX = "model.safetensors.index.json"
ALONE = "model.safetensors"
"""The weights of a model that needs no index."""
LARGEST = 64 << 20
"""Bytes of the largest index that is read: 512 experts in 60 layers need about half of it."""
_WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".onnx", ".onnx_data", ".h5", ".msgpack", ".ot",
    ".npz", ".tflite", ".mlmodel", ".nemo",
)  # fmt: skip
_METADATA = 64 << 10


def index_of(manifest: Manifest) -> ManifestFile | None:
    """The manifest's index, which has to be read; None where one file of weights needs none. Raises ManifestError."""
    found = {file.path: file for file in manifest.files}
    where = f"{manifest.repository}@{manifest.commit[:12]}"
    if INDEX in found:
        if found[INDEX].size > LARGEST:
            raise ManifestError.of("index-too-large", where=where, file=INDEX, size=found[INDEX].size, limit=LARGEST)
        return found[INDEX]
    if ALONE not in found:
        raise ManifestError.of("index-missing", where=where, index=INDEX, alone=ALONE)
    return None


def named(text: bytes, manifest: Manifest) -> tuple[str, ...]:
    """The files that an index names, sorted. Raises ManifestError for a text that is no index of this manifest."""
    where = f"{INDEX} of {manifest.repository}@{manifest.commit[:12]}"
    paths = {file.path for file in manifest.files}
    try:
        files = _files(Reader(text.decode("utf-8")), paths)
    except UnicodeDecodeError:
        raise ManifestError.of("index-unreadable", where=where, why="not UTF-8") from None
    except NotFlat as error:
        raise ManifestError.of("index-unreadable", where=where, why=str(error)) from None
    if not files:
        raise ManifestError.of("index-unreadable", where=where, why="it names no file")
    return tuple(sorted(files))


def _files(reader: Reader, paths: Collection[str]) -> set[str]:
    files: set[str] = set()
    for key in reader.members():
        if key != "weight_map":
            reader.small(_METADATA)
            continue
        for tensor in reader.members():
            file = reader.string()
            if file not in paths:
                raise NotFlat(f"it names {file[:120]!r} for {tensor[:120]!r}, which is no file of the commit")
            files.add(file)
    reader.end()
    return files


def only(manifest: Manifest, weights: Collection[str]) -> Manifest:
    """The manifest without the weights that are not among these."""
    left = tuple(file for file in manifest.files if file.path in weights or not file.path.lower().endswith(_WEIGHTS))
    return Manifest(manifest.repository, manifest.commit, left)
