"""Merging layers of variables: mappings merge, the rest replaces, null unsets.

Layers are folded from the weakest to the strongest. A `None` stays as a mark until `settle`, so that it unsets
what weaker layers said and stronger layers can set it again. It must not know which layers there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparkops.inventory.document import Document, Where

Variables: TypeAlias = Mapping[str, Any]
"""Values by name, of the types that the roles' schemas give them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One source of variables. `data` maps a role's name to its variables, `at` to their place in the document."""

    name: str
    data: Mapping[str, object]
    document: Document
    at: Mapping[str, Where]

    def where(self, path: Sequence[str]) -> str:
        """`file:line:column` of the value at a path that starts with the role's name."""
        return self.document.where((*self.at.get(path[0], ()), *path[1:]))

    def has(self, path: Sequence[str]) -> bool:
        """Whether this layer sets a value at exactly this path; null sets none."""
        here: object = self.data
        for part in path:
            if not isinstance(here, Mapping) or part not in here:
                return False
            here = here[part]
        return here is not None


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """`over` laid upon `base`. Neither is changed."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merge(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def settle(values: Mapping[str, object]) -> dict[str, object]:
    """`values` without the keys that are unset, at every depth of mappings; lists are taken as they are."""
    return {
        key: settle(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def fold(layers: Iterable[Mapping[str, object]]) -> dict[str, Any]:
    """All layers, weakest first, as one settled mapping."""
    result: dict[str, object] = {}
    for layer in layers:
        result = merge(result, layer)
    return settle(result)


def leaves(values: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every leaf with its path; an empty mapping is a leaf."""
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, here)
        else:
            yield here, value


def origin(layers: Sequence[Layer], path: Sequence[str]) -> Layer | None:
    """The layer that a merged leaf came from: the strongest that says something at its path."""
    return next((layer for layer in reversed(layers) if layer.has(path)), None)
