"""A user's own file under `knowledge/models/`, checked against `knowledge/model.schema.json` by jsonschema.

Bundled files are checked in the tests. It must not know where the files are.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.models.architecture.descriptions import Description, described, encoder
from sparkops.models.architecture.geometry import of_config


def check(content: Mapping[str, Any], where: str) -> None:
    """Raises InventoryError, with every fault found, for a file that does not fit the schema or has unknown keys."""
    found = sorted(_validator().iter_errors(content), key=lambda error: error.json_path)
    faults = [fault for error in found for fault in _faults(error, where)]
    faults += _geometry(content["geometry"], where)
    if faults:
        raise InventoryError.joined(faults)
    of_config(content["geometry"], f"{where}: geometry")


@cache
def _validator() -> Draft202012Validator:
    """The schema, without the keys `source` that are required of bundled files only."""

    def relaxed(part: dict[str, object]) -> dict[str, object]:
        required = part.get("required")
        return part if not isinstance(required, list) else {**part, "required": [n for n in required if n != "source"]}

    text = (bundled("knowledge") / "model.schema.json").read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text, object_hook=relaxed))


def _faults(error: Any, where: str) -> Iterator[InventoryError]:
    key = error.json_path.removeprefix("$").removeprefix(".")
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        yield from _unknown((name for name in error.instance if name not in known), known, key, where)
    elif "propertyNames" in error.relative_schema_path:
        yield from _unknown([error.instance], error.validator_value, key, where)
    else:
        yield InventoryError.of("model-file-invalid", where=where, key=key or "the file", message=error.message)


def _geometry(geometry: Mapping[str, Any], where: str) -> Iterator[InventoryError]:
    """Keys that no description reads: a misspelt one would leave every figure unknown."""
    names = geometry.get("architectures")
    found = described(str(names[0])) if isinstance(names, list) and names else None
    if found is not None:
        yield from _unread(found, geometry, "geometry", where)
    vision = geometry.get("vision_config")
    tower = encoder(vision, found) if isinstance(vision, dict) else None
    if tower is not None:
        yield from _unread(tower, vision or {}, "geometry.vision_config", where)
    elif isinstance(vision, dict):
        yield from _unknown(vision, (), "geometry.vision_config", where)


def _unread(by: Description, config: Mapping[str, object], key: str, where: str) -> Iterator[InventoryError]:
    yield from _unknown(by.unread(config), sorted(by.reads | by.inert), key, where)


def _unknown(names: Iterable[object], known: Iterable[str], key: str, where: str) -> Iterator[InventoryError]:
    for name in names:
        close = difflib.get_close_matches(str(name), list(known), 1)
        hint = f"did you mean {close[0]}?" if close else "leave it out: nothing reads it"
        yield InventoryError.of("model-key-unknown", where=where, key=f"{key}.{name}" if key else name, hint=hint)
