"""Notices for a person: each once, and what is said alike of several nodes in one line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sparkops.reports.formatting import names


def grouped(texts: Iterable[str], nodes: Sequence[str]) -> Iterator[str]:
    """The texts without repetition; of those that differ in a node's name alone the first, with the others' names."""
    longest = sorted(nodes, key=len, reverse=True)
    place = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, longest))})(?![\w-]|\.\w)") if nodes else None
    alike: dict[str, dict[str, list[str]]] = {}
    for text in dict.fromkeys(texts):
        found = place.findall(text) if place is not None else []
        alike.setdefault(place.sub("\0", text) if place is not None else text, {})[text] = found
    for group in alike.values():
        (first, said), *others = group.items()
        more = [each for _, found in others for each, own in zip(found, said, strict=True) if each != own]
        more = list(dict.fromkeys(more))
        yield f"{first} (and the same of {names(more)})" if more else first
