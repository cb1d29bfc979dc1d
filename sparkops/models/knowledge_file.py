"""Reads one file of `knowledge/`: YAML, or JSON where a program wrote it. It must not know what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sparkops.core.data import parsed
from sparkops.core.errors import InventoryError


def read(path: Path) -> dict[str, Any]:
    """The content of a file. Raises InventoryError for one that can't be read or is not a mapping."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else parsed(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InventoryError.of("knowledge-file-invalid", where=str(path), error=error) from None
    if not isinstance(content, dict):
        raise InventoryError.of("knowledge-file-not-mapping", where=str(path))
    return content


@contextmanager
def in_shape_of(schema: str, path: Path) -> Iterator[None]:
    """What goes wrong with the content of a file is an InventoryError that names the schema."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InventoryError.of("knowledge-file-shape", where=str(path), schema=schema, error=error) from None
