"""Secrets on their way through expressions: opaque marks that are opened at the very end, and only where they are used.

An expression sees a mark, a few characters of a private area of Unicode, where a secret stands. Text that holds a mark
is secret as a whole once it is opened. A filter that must see the text (quoting) makes a new mark for its result. A
mark that was cut or altered is an error, never a wrong password on a node.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret, SecretRef

_BEGIN, _END, _DIGITS = "\U0010f000", "\U0010f001", "".join(chr(0x10F010 + digit) for digit in range(10))
_MARK = re.compile(f"{_BEGIN}([{_DIGITS}]+){_END}")
_TRACE = re.compile("[\U0010f000-\U0010f0ff]")
_TO_MARK = str.maketrans("0123456789", _DIGITS)
_FROM_MARK = str.maketrans(_DIGITS, "0123456789")


class SecretPlaceholders:
    """The marks of one compilation. `resolve` is called for a secret at most when its text is needed."""

    def __init__(self, resolve: Callable[[SecretRef], Secret]) -> None:
        self._resolve = resolve
        self._texts: list[tuple[Callable[[], str], str]] = []
        self._known: dict[SecretRef, str] = {}

    def seal(self, value: object) -> Any:
        """A value with a mark in place of each secret or reference to one, at any depth."""
        if isinstance(value, SecretRef):
            if value not in self._known:
                self._known[value] = self._new(lambda: self._resolve(value).reveal(), str(value))
            return self._known[value]
        if isinstance(value, Secret):
            return self._new(value.reveal, value.origin)
        if isinstance(value, Mapping):
            return {key: self.seal(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.seal(each) for each in value]
        return value

    def derive(self, value: object, make: Callable[[object], str]) -> str:
        """`make(value)`, or a mark for it when the value holds a secret."""
        if not self.holds(value):
            return make(value)
        return self._new(lambda: make(self._reveal(value)), self.origin(value))

    def holds(self, value: object) -> bool:
        """Whether a mark, or what is left of one, stands anywhere in a value."""
        if isinstance(value, str):
            return not value.isascii() and _TRACE.search(value) is not None
        if isinstance(value, Mapping):
            return any(self.holds(key) or self.holds(each) for key, each in value.items())
        return isinstance(value, (list, tuple)) and any(self.holds(each) for each in value)

    def open(self, value: object) -> Any:
        """A value whose marked texts are Secrets with their true text. Raises InventoryError for a broken mark."""
        if isinstance(value, str):
            if not self.holds(value):
                return value
            return Secret(self._reveal(value), origin=self.origin(value))
        if isinstance(value, Mapping):
            return {self._key(key): self.open(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.open(each) for each in value]
        return value

    def _new(self, text: Callable[[], str], origin: str) -> str:
        self._texts.append((text, origin))
        return f"{_BEGIN}{str(len(self._texts) - 1).translate(_TO_MARK)}{_END}"

    def _reveal(self, value: object) -> Any:
        if isinstance(value, str):
            if _TRACE.search(_MARK.sub("", value)):
                raise _broken()
            return _MARK.sub(lambda mark: self._text(mark.group(1))[0](), value)
        if isinstance(value, Mapping):
            return {self._key(key): self._reveal(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._reveal(each) for each in value]
        return value

    def origin(self, value: object) -> str:
        """The references of the secrets inside a value, for messages."""
        if isinstance(value, Mapping):
            return ", ".join(dict.fromkeys(filter(None, map(self.origin, value.values()))))
        if isinstance(value, (list, tuple)):
            return ", ".join(dict.fromkeys(filter(None, map(self.origin, value))))
        found = _MARK.findall(value) if isinstance(value, str) else []
        return ", ".join(dict.fromkeys(self._text(digits)[1] for digits in found))

    def _text(self, digits: str) -> tuple[Callable[[], str], str]:
        index = int(digits.translate(_FROM_MARK))
        if index >= len(self._texts):
            raise _broken()
        return self._texts[index]

    def _key(self, key: object) -> object:
        if self.holds(key):
            raise InventoryError.of("secret-as-key")
        return key


def _broken() -> InventoryError:
    return InventoryError.of("secret-altered")
