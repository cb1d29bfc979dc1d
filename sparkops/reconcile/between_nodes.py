"""In what the nodes of a service differ from each other, beside what each is declared to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sparkops.core.messages import UNKNOWN
from sparkops.core.plan import Between
from sparkops.core.states import Observed, Unknown
from sparkops.resources.rank import Rank
from sparkops.resources.resource import Resource

MEMORY_TOLERANCE = 0.05
"""Fraction by which makers' units of one size differ (119 or 121 GiB of 128 GB)."""


def compare(resources: Iterable[Resource], found: Mapping[str, Observed]) -> tuple[Between, ...]:
    """The facts in which ranks of one service differ, by service.

    A value that is not there (nothing runs) is compared with nothing. One that is unknown is no difference by itself;
    it is told where the others differ.
    """
    by_service: dict[str, dict[str, Mapping[str, object]]] = {}
    for each in resources:
        seen = found.get(each.id) if isinstance(each, Rank) else None
        if isinstance(seen, Mapping) and each.service:
            by_service.setdefault(each.service, {})[each.node] = seen
    return tuple(each for service, ranks in by_service.items() for each in _of(service, ranks))


def _of(service: str, ranks: Mapping[str, Mapping[str, object]]) -> Iterator[Between]:
    for fact in dict.fromkeys(key for seen in ranks.values() for key in seen if key not in Rank.reads):
        values = {node: _value(seen.get(fact)) for node, seen in ranks.items()}
        known = [each for each in values.values() if each is not None and not isinstance(each, Unknown)]
        if _differ(fact, known):
            yield Between(service=service, fact=fact, values=values)


def _value(told: object) -> object:
    """A value as it stands in the section; a node may tell anything, so that what is not plain is text."""
    if isinstance(told, Mapping):
        return Unknown.from_json(told[UNKNOWN]) if UNKNOWN in told else str(dict(told))
    return told if told is None or isinstance(told, (str, int, float)) else str(told)


def _differ(fact: str, known: Sequence[object]) -> bool:
    sizes = [each for each in known if isinstance(each, (int, float))]
    if fact == "memory_bytes" and len(sizes) == len(known):
        return bool(sizes) and max(sizes) - min(sizes) > MEMORY_TOLERANCE * max(sizes)
    return len({str(each) for each in known}) > 1
