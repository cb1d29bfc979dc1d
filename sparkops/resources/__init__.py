"""The kinds, control half: one module per kind, found by name; entry points add a third party's."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUILT_IN = (
    "built_checkpoint",
    "checkpoint",
    "command",
    "directory",
    "file",
    "image",
    "link",
    "mount",
    "package",
    "probe",
    "require",
    "sysctl",
    "unit",
    "user",
)
GROUP = "sparkops.kinds"


@cache
def names() -> tuple[str, ...]:
    """Every kind's name, the built-in ones and those of installed packages (entry point group `sparkops.kinds`)."""
    others = {entry.name for entry in _entries()}
    return tuple(sorted({*BUILT_IN, *others}))


@cache
def kind(name: str) -> type[Resource]:
    """The class of a kind. Raises KeyError for a name that no one provides.

    A built-in kind stands in `sparkops.resources.NAME` as the class that has `kind = NAME`.
    """
    if name in BUILT_IN:
        module = importlib.import_module(f"sparkops.resources.{name}")
        return _only_kind(vars(module), name)
    for entry in _entries():
        if entry.name == name:
            found = entry.load()
            if not (isinstance(found, type) and issubclass(found, Resource)):
                raise TypeError(f"entry point {GROUP}:{name} is no Resource")
            return found
    raise KeyError(name)


def _entries() -> Iterable[EntryPoint]:
    import importlib.metadata  # late: it loads `email` and `zipfile`, and runs of built-in kinds need neither

    return importlib.metadata.entry_points(group=GROUP)


def _only_kind(members: dict[str, object], name: str) -> type[Resource]:
    for member in members.values():
        if isinstance(member, type) and issubclass(member, Resource) and vars(member).get("kind") == name:
            return member
    raise KeyError(name)
