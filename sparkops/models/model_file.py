"""A file of one's own under `knowledge/models/`, held against `knowledge/model.schema.json` by a plain reading of it.

Bundled files are checked in the tests. It must not know where the files are.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from sparkops.core.data import bundled
from sparkops.core.errors import InventoryError
from sparkops.models.geometry import DRAFTING_KEYS, KEYS, VISION_KEYS, of_config

KINDS: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check(content: Mapping[str, Any], where: str) -> None:
    """Raises InventoryError, with every fault found, where a file says something that nothing reads or understands."""
    faults = [*_faults(content, _schema(), "", where), *_geometry(content["geometry"], where)]
    if faults:
        first = faults[0]
        raise InventoryError(first.what, where=first.where, hint=first.hint, others=tuple(faults[1:]))
    of_config(content["geometry"], f"{where}: geometry")


@cache
def _schema() -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads((bundled("knowledge") / "model.schema.json").read_text(encoding="utf-8"))
    return content


def _faults(value: Any, rule: Mapping[str, Any], key: str, where: str) -> Iterator[InventoryError]:
    """What is wrong with a value, and with what is in it. Keywords that the schema does not use are not read."""
    if "$ref" in rule:
        rule = _schema()["$defs"][rule["$ref"].rpartition("/")[2]]
    choices = [each for each in rule.get("anyOf", [rule]) if _is(value, each.get("type", ""))]
    if not choices:
        kinds = " or ".join(each["type"] for each in rule.get("anyOf", [rule]))
        yield InventoryError(f"{key} is {value!r}, not of the type {kinds}", where=where, hint="correct the file")
        return
    rule = choices[0]
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        yield InventoryError(
            f"{key} is {value!r}, which nothing here understands", where=where, hint=f"it must match {rule['pattern']}"
        )
    if isinstance(value, list):
        yield from _items(value, rule, key, where)
    if isinstance(value, dict):
        yield from _keys(value, rule, key, where)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind in ("boolean", "")
    return not kind or isinstance(value, KINDS[kind])


def _items(value: list[Any], rule: Mapping[str, Any], key: str, where: str) -> Iterator[InventoryError]:
    if len(value) < rule.get("minItems", 0):
        yield InventoryError(f"{key} has too few entries", where=where, hint=f"give {rule['minItems']}")
    for index, each in enumerate(value):
        yield from _faults(each, rule.get("items", {}), f"{key}[{index}]", where)


def _keys(value: Mapping[str, Any], rule: Mapping[str, Any], key: str, where: str) -> Iterator[InventoryError]:
    known, other = rule.get("properties", {}), rule.get("additionalProperties", True)
    allowed = rule.get("propertyNames", {}).get("enum", known if other is False else None)
    if allowed is not None:
        yield from _unknown(value, allowed, key, where)
    for name in rule.get("required", ()):
        if name not in value and name != "source":  # of one's own file nobody asks where it is from
            yield InventoryError(f"{key or 'the file'} has no {name}", where=where, hint=f"write {name}")
    for name, each in value.items():
        inner = known.get(name, other if isinstance(other, dict) else {})
        yield from _faults(each, inner, f"{key}.{name}" if key else str(name), where)


def _geometry(geometry: Mapping[str, Any], where: str) -> Iterator[InventoryError]:
    """Keys that `geometry.of_config` does not read: a misspelt one would be a size of 0."""
    yield from _unknown(geometry, KEYS, "geometry", where)
    for name, known in (("vision_config", VISION_KEYS), ("dflash_config", DRAFTING_KEYS)):
        if isinstance(geometry.get(name), dict):
            yield from _unknown(geometry[name], known, f"geometry.{name}", where)


def _unknown(
    value: Mapping[str, Any], known: Mapping[str, Any] | tuple[str, ...] | list[str], key: str, where: str
) -> Iterator[InventoryError]:
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), list(known), 1)
            hint = f"did you mean {close[0]}?" if close else "leave it out: nothing reads it"
            yield InventoryError(f"{key + '.' if key else ''}{name} is no key of a model", where=where, hint=hint)
