"""What is alike on several nodes, so that it is told once: lines, violations, notices. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from sparkops.core.plan import Plan, Violation
from sparkops.reports.formatting import names

Line: TypeAlias = "tuple[int, tuple[tuple[str, str], ...]]"
"""An indentation, and words with their styles."""


def anywhere(node: str, lines: Sequence[Line]) -> Iterator[Line]:
    """Lines about a node without its name, by which two nodes are alike."""
    place = re.compile(rf" @{re.escape(node)}(?![\w.-])")
    for indent, parts in lines:
        yield indent, tuple((place.sub("", words), style) for words, style in parts)


def kind_of(violation: Violation) -> Violation:
    """The violation without its place; equal for the same fault on several nodes."""
    return replace(violation, node="", resource="")


def shared_by(plan: Plan) -> dict[tuple[str, ...], list[Violation]]:
    """The faults that several nodes have alike, by those nodes."""
    nodes: dict[Violation, list[str]] = {}
    for each in plan.violations:
        nodes.setdefault(kind_of(each), []).append(each.node)
    found: dict[tuple[str, ...], list[Violation]] = {}
    for violation, where in nodes.items():
        if len(set(where)) > 1:
            found.setdefault(tuple(dict.fromkeys(where)), []).append(violation)
    return found


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
