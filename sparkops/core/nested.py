"""Values in values: how mappings and lists are walked, by all who look for something in them or replace it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

PLAIN = (str, int, float, bool, type(None))
"""The types of values that JSON has, beside mappings and lists."""


def mapped(value: object, leaf: Callable[[Any], object], key: Callable[[Any], object] = lambda each: each) -> Any:
    """The same value with `leaf` of each that is no mapping and no list, and `key` of each key. Tuples become lists."""
    if isinstance(value, Mapping):
        return {key(name): mapped(each, leaf, key) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [mapped(each, leaf, key) for each in value]
    return leaf(value)


def plain(value: object) -> object:
    """A value fit for JSON: what is no type of it (an unknown or pending value, a secret) as its printed form."""
    return mapped(value, lambda each: each if isinstance(each, PLAIN) else str(each), str)


def leaves(value: object) -> Iterator[object]:
    """Everything in a value that is no mapping and no list, keys too."""
    if isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        yield value
