"""Secrets on their way through expressions: opaque marks that are opened at the very end, and only where they are used.

An expression sees a mark, a few characters of a private area of Unicode, where a secret stands. Text that holds a mark
is secret as a whole once it is opened. A filter that must see the text (quoting) makes a new mark for its result. A
mark that was cut or altered is an error, never a wrong password on a node.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sparkops.core.errors import InventoryError
from sparkops.core.nested import leaves, mapped
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
        return mapped(value, self._sealed)

    def _sealed(self, value: object) -> object:
        if isinstance(value, SecretRef):
            if value not in self._known:
                self._known[value] = self._new(lambda: self._resolve(value).reveal(), str(value))
            return self._known[value]
        return self._new(value.reveal, value.origin) if isinstance(value, Secret) else value

    def derive(self, value: object, make: Callable[[object], str]) -> str:
        """`make(value)`, or a mark for it when the value holds a secret."""
        if not self.holds(value):
            return make(value)
        return self._new(lambda: make(mapped(value, self._revealed, self._key)), self.origin(value))

    def holds(self, value: object) -> bool:
        """Whether a mark, or what is left of one, stands anywhere in a value."""
        return any(map(_marked, leaves(value)))

    def open(self, value: object) -> Any:
        """A value whose marked texts are Secrets with their true text. Raises InventoryError for a broken mark."""
        return mapped(value, self._opened, self._key)

    def _opened(self, value: object) -> object:
        return Secret(str(self._revealed(value)), origin=self.origin(value)) if _marked(value) else value

    def origin(self, value: object) -> str:
        """The references of the secrets inside a value, for messages."""
        found = [digits for each in leaves(value) if isinstance(each, str) for digits in _MARK.findall(each)]
        return ", ".join(dict.fromkeys(self._text(digits)[1] for digits in found))

    def _new(self, text: Callable[[], str], origin: str) -> str:
        self._texts.append((text, origin))
        return f"{_BEGIN}{str(len(self._texts) - 1).translate(_TO_MARK)}{_END}"

    def _revealed(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        if _TRACE.search(_MARK.sub("", value)):
            raise InventoryError.of("secret-altered")
        return _MARK.sub(lambda mark: self._text(mark.group(1))[0](), value)

    def _text(self, digits: str) -> tuple[Callable[[], str], str]:
        index = int(digits.translate(_FROM_MARK))
        if index >= len(self._texts):
            raise InventoryError.of("secret-altered")
        return self._texts[index]

    @staticmethod
    def _key(key: object) -> object:
        if _marked(key):
            raise InventoryError.of("secret-as-key")
        return key


def _marked(value: object) -> bool:
    return isinstance(value, str) and not value.isascii() and _TRACE.search(value) is not None
