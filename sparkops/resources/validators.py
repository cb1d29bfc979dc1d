"""Checks of declared values that several kinds share; each error shows the value, the place and the way out.

It must not know any kind, and it does not look at a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret
from sparkops.core.states import FromFact
from sparkops.core.system_places import fault_of_path

_MODE = re.compile(r"[0-7]{3,4}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10}")


def path(value: object, what: str, where: str) -> str:
    """An absolute, normal path: no `..`, no doubled or final slash. Raises InventoryError."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or "\n" in value:
        raise InventoryError.of("path-not-absolute", where=where, what=what, value=value)
    parts = value[1:].split("/")
    if value != "/" and any(part in ("", ".", "..") for part in parts):
        normal = "/" + "/".join(part for part in parts if part not in ("", "."))
        hint = "write it without `..`" if ".." in parts else f"write {normal}"
        raise InventoryError.of("path-not-normal", where=where, what=what, value=value, hint=hint)
    return value


def place(value: object, what: str, where: str, *, folder: bool = False) -> str:
    """A `path` at which a file or link may be declared, or with `folder` a directory. Raises InventoryError."""
    if id := fault_of_path(path(value, what, where), folder=folder):
        raise InventoryError.of(id, where=where, what=what, path=value)
    return str(value)


def mode(value: object, where: str) -> str | None:
    """`0644` for a declared mode; None for none. Raises InventoryError, in particular for numbers."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        guess = f"{value:04o}" if 0 <= value <= 0o7777 else "0644"
        raise InventoryError.of("mode-is-number", where=where, value=value, guess=guess)
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise InventoryError.of("mode-invalid", where=where, value=value)
    return value.zfill(4)


def account(value: object, what: str, where: str) -> object:
    """The name or number of a user or group as text; None and facts pass. Raises InventoryError."""
    if value is None or isinstance(value, FromFact):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InventoryError.of("owner-invalid", where=where, what=what, value=value)
    return value


def words(value: object, what: str, where: str) -> tuple[str, ...]:
    """A list of words, such as an argument list, as a tuple of texts. Raises InventoryError for texts and secrets."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InventoryError.of("not-a-list", where=where, what=what, value=value)
    found = []
    for each in value:
        if isinstance(each, Secret):
            raise InventoryError.of("secret-on-command-line", where=where, what=what)
        if isinstance(each, bool) or not isinstance(each, (str, int, float)) or "\0" in str(each):
            raise InventoryError.of("argument-not-text", where=where, what=what, each=each)
        found.append(str(each))
    return tuple(found)


def one_of(value: object, what: str, choices: tuple[str, ...], where: str) -> str:
    """One of the words in `choices`. Raises InventoryError."""
    if value not in choices:
        raise InventoryError.of("choice-invalid", where=where, what=what, value=value, choices=", ".join(choices))
    return str(value)
