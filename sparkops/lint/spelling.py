"""What a rule adds to an unknown word: the nearest known one, and the engine versions that know it."""

from __future__ import annotations

from collections.abc import Iterable

from sparkops.inventory.faults import nearest
from sparkops.lint.case import Case
from sparkops.models.engine import spans


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A way out that names the nearest other word; "" where none is near."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near and near != word else ""


def known_to(case: Case, kind: str, word: str) -> str:
    """The listed versions that know a word of a kind (`flags`, `tool_parsers`, …), like "0.20.2 to 0.26.0"."""
    span = spans(kind, word, case.beside)
    return f"{span[0]} to {span[1]}" if span else ""


def unless_known(case: Case, kind: str, word: str) -> str:
    """Half a sentence about the versions that know the word; "" where none does."""
    versions = known_to(case, kind, word)
    return f"; {versions} know it" if versions else ""
