"""JSON from outside, read member by member, so that a hostile text can't become objects many times its size.

Whoever reads says at each place what may stand there; the first thing that may not ends the reading. Pure values, also
for the node; standard library only.
"""

import json
import re
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]

_SPACE = re.compile(r"[ \t\n\r]*")


class NotFlat(ValueError):
    """Something else stands there than may; the message says what."""


class Reader:
    """A text and a place in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def members(self) -> Iterator[str]:
        """The names of the members of the object at this place, each once; the caller reads each value before the next.

        Raises NotFlat, also for a name that comes twice.
        """
        self._take("{", "an object")
        seen: set[str] = set()
        while not (not seen and self._next() == "}"):
            name = self.string()
            if name in seen:
                raise NotFlat(f"it names {name[:120]!r} twice")
            seen.add(name)
            self._take(":", "a value")
            yield name
            if self._next() != ",":
                break
            self._at += 1
        self._take("}", "the end of an object")

    def string(self) -> str:
        """The string at this place."""
        self._take('"', "a string")
        try:
            found, self._at = scanstring(self._text, self._at, True)
        except ValueError as error:
            raise NotFlat(f"it is no JSON: {error}") from None
        return str(found)

    def small(self, limit: int) -> object:
        """The object at this place, which holds no other and whose text has at most so many characters."""
        found = self._next()
        if found != "{":
            raise NotFlat(f"{found!r} stands where an object was expected" if found else "it ends too early")
        end = self._text.find("}", self._at, self._at + limit) + 1
        if not end:
            raise NotFlat(f"an object in it does not end within {limit} characters")
        try:
            value, used = _DECODER.raw_decode(self._text[self._at : end])
        except NotFlat:
            raise
        except (ValueError, RecursionError) as error:
            raise NotFlat(f"it is no JSON: {error}") from None
        self._at += used
        return value

    def end(self) -> None:
        """Nothing more may come."""
        if self._next():
            raise NotFlat("more text comes after its end")

    def _next(self) -> str:
        """The character at this place, blanks skipped; "" at the end."""
        found = self._text[self._at : self._at + 1]
        if found not in " \t\n\r":
            return found
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._text[self._at : self._at + 1]

    def _take(self, character: str, what: str) -> None:
        found = self._next()
        if found != character:
            raise NotFlat(f"{found!r} stands where {what} was expected" if found else "it ends too early")
        self._at += 1


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotFlat("it names something twice")
    return found


def _no_number(word: str) -> None:
    raise NotFlat(f"it holds {word}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
