"""States and the values in them that are not (yet) plain: unknown, pending, taken from a fact.

A state is a flat mapping of plain values; `None` is absence. An observation is a state or `Unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparkops.core.messages import UNKNOWN, Fields, State
from sparkops.core.nested import mapped
from sparkops.core.wording import Message

__all__ = ["Facts", "FromFact", "Observed", "Pending", "State", "Unknown", "lookup", "resolve"]


@dataclass(frozen=True, slots=True)
class Unknown(Message):
    """It could not be found out, and why. Nothing may be removed, restarted or overwritten because of it."""

    def __str__(self) -> str:
        return f"(unknown: {self.text})"


@dataclass(frozen=True, slots=True)
class Pending:
    """The value that a step, named by the id of its resource, will have brought about."""

    step: str

    def __str__(self) -> str:
        return f"(known after {self.step})"


@dataclass(frozen=True, slots=True)
class FromFact:
    """A desired value that the node's own facts give, by a dotted path such as `fabric.rail0.ifname`."""

    path: str

    def __str__(self) -> str:
        return f"(fact {self.path})"


Observed: TypeAlias = "Fields | Unknown | None"
Facts: TypeAlias = "Fields | Unknown"


def lookup(facts: Mapping[str, object] | Unknown, path: str) -> object:
    """The fact at a dotted path; `Unknown` where any part of the way is missing or unknown itself."""
    here: object = facts
    for part in path.split("."):
        if isinstance(here, Unknown):
            return here
        if not isinstance(here, Mapping) or part not in here:
            return Unknown.of("fact-not-there", fact=path)
        here = here[part]
        if isinstance(here, Mapping) and UNKNOWN in here:
            return Unknown.of("fact-unknown", fact=path, reason=here[UNKNOWN])
    return here


def resolve(value: object, facts: Mapping[str, object] | Unknown) -> Any:
    """`value` with every `FromFact` in it, at any depth, replaced out of `facts`."""
    return mapped(value, lambda each: lookup(facts, each.path) if isinstance(each, FromFact) else each)
