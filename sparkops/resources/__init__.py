"""The kinds, control half: a module of this package for each, found by its name; entry points add other packages'."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "sparkops.kinds"
FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Every kind's name, those of this package and of installed ones (entry point group `sparkops.kinds`)."""
    own = {path.stem for path in FOLDER.glob("*.py") if _own(path.stem) is not None}
    return tuple(sorted({*own, *(entry.name for entry in _entries())}))


@cache
def kind(name: str) -> type[Resource]:
    """The class of a kind. Raises KeyError for a name that no one provides.

    It stands in `sparkops.resources.NAME` as the class that has `kind = NAME`, or is what an entry point names.
    """
    if (own := _own(name)) is not None:
        return own
    for entry in _entries():
        if entry.name == name:
            found = entry.load()
            if not (isinstance(found, type) and issubclass(found, Resource)):
                raise TypeError(f"entry point {GROUP}:{name} is no Resource")
            return found
    raise KeyError(name)


def known(name: str) -> type[Resource]:
    """The class of a kind; where no one provides it `Resource`, of which nothing is known."""
    try:
        return kind(name)
    except KeyError:
        return Resource


def removable() -> frozenset[str]:
    """The kinds whose things a prune removes."""
    return frozenset(name for name in names() if kind(name).prune == "remove")


def _own(name: str) -> type[Resource] | None:
    if not name.isidentifier() or not (FOLDER / f"{name}.py").is_file():
        return None
    for member in vars(importlib.import_module(f"sparkops.resources.{name}")).values():
        if isinstance(member, type) and issubclass(member, Resource) and vars(member).get("kind") == name:
            return member
    return None


def _entries() -> Iterable[EntryPoint]:
    import importlib.metadata  # late: it loads `email` and `zipfile`, and runs of built-in kinds need neither

    return importlib.metadata.entry_points(group=GROUP)
