"""Text that holds facts of nodes before they are known: marks, filled in once the nodes were asked.

A mark is ASCII without spaces or quotes, so that it passes unchanged through JSON, unit files and argument lists. A
digest of text with marks is a mark itself, made when its text is filled. It must not know how a node is asked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sparkops.core.messages import UNKNOWN
from sparkops.core.states import Unknown

_MARK = re.compile(r"@(fact|sha256):([0-9a-f]+)@")
PLAIN = re.compile(r"[A-Za-z0-9_.,:=^/%-]+")
"""What a fact may put into a text: names of interfaces and devices, addresses, numbers."""


@dataclass(frozen=True, slots=True)
class FactOf:
    """A fact of a node by its path, the group first. Of a list the items stand side by side, each with `suffix`.

    `missing` stands in the place of one that is not there; without it that is unknown.
    """

    node: str
    path: tuple[str, ...]
    suffix: str = ""
    missing: str = ""

    @property
    def words(self) -> str:
        return f"{'.'.join(self.path)} of {self.node}"

    def __str__(self) -> str:
        """The mark."""
        return f"@fact:{json.dumps([self.node, self.path, self.suffix, self.missing]).encode().hex()}@"

    def value(self, facts: Mapping[str, object] | Unknown) -> str | Unknown:
        """What stands in its place. `facts` are those of its node, by group."""
        if isinstance(facts, Unknown):
            return facts
        here: object = facts
        for part in self.path:
            here = here.get(part) if isinstance(here, Mapping) else None
            if isinstance(here, Unknown):
                return here
            if isinstance(here, Mapping) and UNKNOWN in here:
                return Unknown.of("fact-unknown", fact=self.words, reason=here[UNKNOWN])
        items = here if isinstance(here, (list, tuple)) else [here]
        text = ",".join(f"{each}{self.suffix}" for each in items if each is not None) or self.missing
        if not text:
            return Unknown.of("fact-empty", fact=self.words)
        if not PLAIN.fullmatch(text):
            return Unknown.of("fact-not-plain", fact=self.words, value=text[:80])
        return text


def digest(text: str) -> str:
    """SHA-256 of a text, hexadecimal; a mark for it where the text holds marks."""
    return f"@sha256:{text.encode().hex()}@" if holds(text) else hashlib.sha256(text.encode()).hexdigest()


def holds(text: str) -> bool:
    """Whether a text holds a mark."""
    return ("@fact:" in text or "@sha256:" in text) and _MARK.search(text) is not None


def facts_in(text: str) -> Iterator[FactOf]:
    """The facts that a text waits for."""
    for sort, payload in _MARK.findall(text):
        content = bytes.fromhex(payload).decode()
        if sort == "sha256":
            yield from facts_in(content)
        else:
            node, path, *more = json.loads(content)
            yield FactOf(node, tuple(path), *more)


def filled(text: str, facts: Mapping[str, Mapping[str, object] | Unknown]) -> str | Unknown:
    """The text with its facts, `facts` by node; Unknown with the reason of the first that is not known."""
    for each in facts_in(text):
        value = each.value(facts.get(each.node, Unknown.of("fact-not-there", fact=each.words)))
        if isinstance(value, Unknown):
            return value
    return _replaced(text, lambda fact: str(fact.value(facts[fact.node])))


def shown(text: str) -> str:
    """The text for a reader who has asked no node."""
    return _replaced(text, lambda fact: f"({fact.words})")


def _replaced(text: str, word: Callable[[FactOf], object]) -> str:
    def one(mark: re.Match[str]) -> str:
        content = bytes.fromhex(mark.group(2)).decode()
        if mark.group(1) == "sha256":
            return hashlib.sha256(_replaced(content, word).encode()).hexdigest()
        return str(word(next(facts_in(mark.group(0)))))

    return _MARK.sub(one, text)
