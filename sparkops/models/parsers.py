"""Which parsers of tool calls and of reasoning a family of models needs: the typed view of `knowledge/parsers.yml`.

It must not know an engine: which of the names a version has, `Engine` says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sparkops.core.data import bundled
from sparkops.models import knowledge_file


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models. `tool_call` and `reasoning` are the names of its parsers, the usual one first; empty where
    that is not known. `names` is a pattern at the beginning of its repositories' names; `by_name`: models that are not
    listed have its architectures too."""

    family: str
    names: str
    source: str
    architectures: tuple[str, ...] = ()
    tool_call: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    by_name: bool = False


def family_of(repository: str, architectures: Sequence[str] = ()) -> Family | None:
    """The family of a model by its repository and the architectures of its config.json; None for none that is known.

    A name counts where the architecture, if it is known, is the family's too; without a name that is known, an
    architecture counts that no other family has.
    """
    name = repository.rstrip("/").rpartition("/")[2].lower()
    for each in families():
        known = not architectures or not each.architectures or bool({*architectures} & {*each.architectures})
        if known and re.match(each.names, name):
            return each
    telling = {*architectures} & _telling()
    return next((each for each in families() if telling & {*each.architectures}), None)


def usual(names: Sequence[str], known: Collection[str]) -> str:
    """The first of a family's parsers that an engine has; "" for none."""
    return next((each for each in names if each in known), "")


@cache
def families() -> tuple[Family, ...]:
    """All families, in the order in which they are tried. Raises InventoryError for a file of another shape."""
    path = bundled("knowledge") / "parsers.yml"
    with knowledge_file.in_shape_of("parsers.yml", path):
        return tuple(Family(**_values(each)) for each in knowledge_file.read(path)["families"])


def _values(entry: Mapping[str, object]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


@cache
def _telling() -> frozenset[str]:
    """The architectures of one family only."""
    counts = Counter(name for each in families() for name in each.architectures)
    return frozenset(
        name for each in families() if not each.by_name for name in each.architectures if counts[name] == 1
    )
