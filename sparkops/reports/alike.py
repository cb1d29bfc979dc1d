"""What is alike on several nodes, so that it is told once. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from sparkops.core.plan import Plan, Violation

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
