"""Secrets as types: a value that prints as `***` wherever it is not revealed on purpose.

`reveal` is called in the few places that put the value on its way to the node, and nowhere else.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Literal, NoReturn

MASK = "***"


class Secret:
    """A text that must not be seen. Equality is constant-time; `str`, `repr`, `format` and JSON show `***`."""

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str = "") -> None:
        self._value = value
        self.origin = origin

    def reveal(self) -> str:
        """The value itself. Callers hand it to the node or to a library, never to an output."""
        return self._value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret({self.origin or MASK})"

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self.origin))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret comes from, as the inventory declares it; resolved only when it is used.

    `argument` is the variable's name (`env`), a path (`file`) or an argument list (`command`); `base` the folder
    that relative paths start from.
    """

    source: Literal["env", "file", "command"]
    argument: str | tuple[str, ...]
    where: str = ""
    base: str = "."

    def __str__(self) -> str:
        shown = self.argument if isinstance(self.argument, str) else list(self.argument)
        return f"!{self.source} {shown}"


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a file on its way to a node. With `secret` it is neither shown, diffed nor hashed."""

    text: str | Secret

    @property
    def secret(self) -> bool:
        return isinstance(self.text, Secret)

    def encode(self) -> bytes:
        """The bytes to write on the node."""
        return (self.text.reveal() if isinstance(self.text, Secret) else self.text).encode()
