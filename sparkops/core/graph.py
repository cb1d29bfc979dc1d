"""Directed graphs of named things, as a mapping from each to those that it comes after. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


class Cycle(Exception):
    """`members` come after each other; the first one stands at the end again."""

    def __init__(self, members: tuple[Hashable, ...]) -> None:
        super().__init__(f"dependency cycle: {' → '.join(map(str, members))}")
        self.members = members


def ordered(after: Mapping[Key, Iterable[Key]]) -> tuple[Key, ...]:
    """The keys, each behind those that it comes after, else in the given order. Raises Cycle.

    What is no key itself is left out.
    """
    sorter = TopologicalSorter({key: [each for each in before if each in after] for key, before in after.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise Cycle(tuple(reversed(error.args[1]))) from None
    keys = list(after)
    position = {key: number for number, key in enumerate(keys)}
    found: list[Key] = []
    ready: list[int] = []
    while sorter.is_active():
        for key in sorter.get_ready():
            heapq.heappush(ready, position[key])
        found.append(keys[heapq.heappop(ready)])
        sorter.done(found[-1])
    return tuple(found)


def components(sets: Iterable[Iterable[Key]]) -> tuple[frozenset[Key], ...]:
    """The smallest disjoint sets of which each given one is a part of one, in the order of their first members."""
    found: dict[Key, set[Key]] = {}
    for each in sets:
        members = set(each)
        whole = members.union(*({id(found[key]): found[key] for key in members if key in found}.values()))
        found.update(dict.fromkeys(whole, whole))
    return tuple(map(frozenset, {id(each): each for each in found.values()}.values()))


def reachable(after: Mapping[Key, Iterable[Key]], start: Key) -> frozenset[Key]:
    """All that `start` comes after, over any number of steps; itself only within a cycle."""
    found: set[Key] = set()
    pending = [start]
    while pending:
        new = {*after.get(pending.pop(), ())} - found
        found |= new
        pending += new
    return frozenset(found)
