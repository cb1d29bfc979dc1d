"""Collecting the faults of a reading, so that a user sees all of them at once; and the nearest known word.

It must not know what is being read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from sparkops.core.errors import InventoryError

SHOWN_WORDS = 12
SHOWN_FAULTS = 100


class Faults:
    """The faults found so far; the first `SHOWN_FAULTS` in the order of their places are reported."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], InventoryError] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def full(self) -> bool:
        """Whether so many faults were found that it makes no sense to look for more."""
        return len(self._found) > 10 * SHOWN_FAULTS

    def add(self, id: str, /, *, where: str, **args: Any) -> None:
        """One more fault; the same fault at the same place is reported once (aliases repeat them)."""
        self.take(InventoryError.of(id, where=where, **args))

    def take(self, error: InventoryError) -> None:
        """All faults of an error that was raised elsewhere."""
        for each in (error, *error.others):
            self._found.setdefault((each.what, each.where), each)

    def raise_any(self) -> None:
        """Raises one InventoryError that carries all faults; does nothing when there are none."""
        if not self._found:
            return
        shown = sorted(self._found.values(), key=_place)[:SHOWN_FAULTS]
        if len(self._found) > SHOWN_FAULTS:
            shown.append(InventoryError.of("more-faults", count=len(self._found) - SHOWN_FAULTS))
        raise InventoryError.joined(shown)


def _place(fault: InventoryError) -> tuple[str, int, int]:
    file, *numbers = fault.where.rsplit(":", 2)
    if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
        return file, int(numbers[0]), int(numbers[1])
    return fault.where, 0, 0


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be; swapped letters are the nearest mistake."""
    by_lower = {each.lower(): each for each in known}
    swapped = [each for each in by_lower if sorted(each) == sorted(word.lower())]
    if swapped:
        return by_lower[swapped[0]]
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def suggest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the nearest known one, else the known ones."""
    words = sorted(known)
    close = nearest(word, words)
    if close is not None:
        return f"did you mean {close}?"
    if not words:
        return ""
    rest = len(words) - SHOWN_WORDS
    return f"known: {', '.join(words[:SHOWN_WORDS])}{f' and {rest} more' if rest > 0 else ''}"
