"""What a file made by `docker save` holds, out of its table of contents: one image's layers and configuration.

The layers themselves are skipped over, not read. It must not know nodes.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sparkops.core.errors import InventoryError

LIMIT = 4 << 20
"""Bytes of a manifest or configuration that are read at most."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive of one image. `layers` are the digests of the unpacked layers in order, `size` is in bytes."""

    path: Path
    size: int
    layers: tuple[str, ...]
    config: Mapping[str, object]
    platform: str


def read_archive(path: Path, where: str = "") -> Archive:
    """The image in an archive. Raises InventoryError for a missing file and for anything else than one image."""
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise InventoryError.of(
            "image-archive-unreadable", where=where, path=str(path), text=error.strerror or str(error)
        ) from None
    except (tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InventoryError.of("image-archive-invalid", where=where, path=str(path), text=str(error)) from None


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed: int) -> Archive:
    """Kept by size and time of change, so that the nodes of a cluster share one look."""
    with tarfile.open(path, "r:") as tar:
        images = json.loads(_member(tar, "manifest.json"))
        if len(images) != 1:
            raise ValueError(f"{len(images)} images are in it")
        config = json.loads(_member(tar, images[0]["Config"]))
    layers = tuple(str(each) for each in config["rootfs"]["diff_ids"])
    return Archive(path, size, layers, config.get("config") or {}, f"{config.get('os')}/{config.get('architecture')}")


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    entry = tar.extractfile(name)
    if entry is None:
        raise ValueError(f"{name} in it is no file")
    with entry:
        data = entry.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise ValueError(f"{name} in it is over {LIMIT >> 20} MiB")
    return data
