"""The files of `knowledge/engines/`: a version is complete in itself, or a page of differences from an earlier one.

A page names the version it differs from under `based_on`. Its mappings are merged into that version's; null removes a
key; `add:` and `remove:` change a list of words, which is alphabetical then (`None` last); any other value replaces.
It must not know what the keys mean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sparkops.core.data import folders
from sparkops.core.errors import InventoryError
from sparkops.models import knowledge_file

BASED_ON = "based_on"
NUMBER = re.compile(r"\d+")


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version, `0.26` being `0.26.0`; () for a word that is none.

    A leading `v` and what follows the numbers (`+cu130`, `-aarch64`, `.dev3`, `rc1`) do not count.
    """
    head = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    numbers = tuple(int(number) for number in NUMBER.findall(head[1])) if head else ()
    return numbers + (0,) * (3 - len(numbers)) if numbers else ()


@cache
def engine_files(beside: Path | None) -> Mapping[str, Path]:
    """Each listed version's file; those beside an inventory come before the bundled ones."""
    found: dict[str, Path] = {}
    for folder in folders("knowledge", beside):
        for path in sorted((folder / "engines").glob("*.yml")):
            found.setdefault(path.stem, path)
    return found


@cache
def engine_content(version: str, beside: Path | None) -> Mapping[str, object]:
    """The complete content of a listed version. Raises InventoryError for a file that cannot be read or composed."""
    path = engine_files(beside)[version]
    page = knowledge_file.read(path)
    if BASED_ON not in page:
        return page
    base = str(page[BASED_ON])
    if base not in engine_files(beside) or version_key(base) >= version_key(version):
        raise InventoryError.of("engine-base-invalid", where=str(path), base=base, version=version)
    changes = {key: value for key, value in page.items() if key != BASED_ON}
    try:
        return composed(engine_content(base, beside), changes)
    except ValueError as error:
        raise InventoryError.of("engine-page-invalid", where=str(path), error=error, base=base) from None


def composed(base: Mapping[str, object], changes: Mapping[str, object], place: str = "") -> dict[str, object]:
    """The base with the changes of a page. Raises ValueError for what is added twice or removed without being there."""
    result = dict(base)
    for key, value in changes.items():
        here = f"{place}{key}"
        before = base.get(key)
        if value is None:
            if key not in base:
                raise ValueError(f"{here} is removed, but the base does not have it")
            del result[key]
        elif isinstance(before, str) and isinstance(value, Mapping):
            result[key] = _words(before, value, here)
        elif isinstance(value, Mapping) and (before is None or isinstance(before, Mapping)):
            result[key] = composed(before or {}, value, f"{here}.")
        else:
            result[key] = value
    return result


def alphabetical(words: set[str]) -> str:
    """Words in the order in which the files list them."""
    return " ".join([*sorted(words - {"None"}), *(words & {"None"})])


def _words(before: str, change: Mapping[str, object], place: str) -> str:
    if not {"add", "remove"} >= set(change):
        raise ValueError(f"{place} is a list of words, changed by add and remove only")
    listed = set(before.split())
    added, removed = (set(str(change.get(name, "")).split()) for name in ("add", "remove"))
    if listed & added:
        raise ValueError(f"{place}: {alphabetical(listed & added)}: added, but the base has it")
    if removed - listed:
        raise ValueError(f"{place}: {alphabetical(removed - listed)}: removed, but the base does not have it")
    return alphabetical((listed | added) - removed)
