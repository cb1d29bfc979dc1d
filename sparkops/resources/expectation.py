"""What one fact is expected to be, and the judgement on a value. Pure; it must not know where a value came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, cast

from sparkops.core.errors import InventoryError
from sparkops.core.wording import Severity, size
from sparkops.inventory.faults import suggest
from sparkops.models import platform
from sparkops.models.platform import Component, most_specific

Fault: TypeAlias = Literal[
    "missing", "differs", "denied", "unlisted", "doubtful", "low", "high", "lacks", "present", "uneven", "shared"
]

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why a value is not as expected, by an id and arguments; `severity` is that of what is known, else empty."""

    fault: Fault
    id: str
    args: Mapping[str, object] = field(default_factory=dict)
    severity: Severity | Literal[""] = ""
    remedy: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One key of a requirement's `expect`, which is a plain value (equality) or a mapping of these words.

    equals, one_of          the value, or one of several
    matches, deny           globs, of which one, or none, must match; the more specific counts, deny between equals
    verdicts                a component of knowledge/platform.yml; `accept` and `deny` are the inventory's own word
                            beside it, and a non-empty `accept` leaves out what it does not name
    at_least, at_most       bounds, inclusive (bytes where the key ends in `_bytes`)
    includes, empty         for lists: an element of it, or one of several; that there is none
    equal_on_service        the same on all nodes of the service; numbers within `tolerance`, a fraction of the largest
    distinct_on_service     another on each node of the service; of a list, no element of it on two
    optional                a fact that the node does not have is as expected
    title, reason, remedy, source, severity, id     words for the violation
    """

    equals: object = None
    one_of: tuple[object, ...] = ()
    matches: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    verdicts: str = ""
    at_least: float | None = None
    at_most: float | None = None
    includes: object = None
    empty: bool = False
    equal_on_service: bool = False
    distinct_on_service: bool = False
    tolerance: float = 0.0
    optional: bool = False
    severity: Severity | Literal[""] = ""
    title: str = ""
    reason: str = ""
    remedy: str = ""
    source: str = ""
    id: str = ""


WORDS = frozenset(each.name for each in fields(Expectation))


def parse(declared: object, where: str = "") -> Expectation:
    """The expectation that a role or inventory declares. Raises InventoryError for a word that does not exist."""
    if not isinstance(declared, Mapping):
        return Expectation(equals=declared)
    for word in declared:
        if word not in WORDS:
            hint = suggest(str(word), WORDS)
            raise InventoryError.of("expectation-word-unknown", where=where, word=word, hint=hint)
    given: dict[str, Any] = dict(declared)
    for word in ("one_of", "matches", "deny", "accept"):
        given[word] = tuple(given.get(word) or ())
    for word in ("at_least", "at_most", "tolerance"):
        if isinstance(given.get(word), bool) or not isinstance(given.get(word, 0), (int, float, type(None))):
            raise InventoryError.of("expectation-not-a-number", where=where, word=word, given=given[word])
    if "." not in given.get("id", "."):
        raise InventoryError.of("expectation-id-invalid", where=where, id=given["id"])
    if given.get("verdicts"):
        platform.load().component(given["verdicts"])
    return Expectation(**given)


def judge(key: str, expected: Expectation, value: object) -> Judgement | None:
    """What is wrong with the value of `key` on its own; None when it is as expected."""
    if value is None and not expected.empty:
        if expected.optional or _asks_nothing(expected):
            return None
        return Judgement("missing", "fact-missing")
    if expected.verdicts:
        return _judge_version(expected, platform.load().component(expected.verdicts), str(value))
    return _judge_globs(expected, str(value)) or _judge_plain(key, expected, value)


def _asks_nothing(expected: Expectation) -> bool:
    bounds = (expected.equals, expected.at_least, expected.at_most, expected.includes)
    lists = (expected.one_of, expected.matches, expected.deny, expected.verdicts)
    return all(each is None for each in bounds) and not any(lists)


def _judge_globs(expected: Expectation, text: str) -> Judgement | None:
    globs = [*expected.deny, *expected.matches]
    index = most_specific(globs, text)
    if index is not None and index < len(expected.deny):
        return Judgement("denied", "fact-denied", {"value": text, "pattern": globs[index]})
    if expected.matches and index is None:
        return Judgement("unlisted", "fact-unlisted", {"value": text, "choices": listed(expected.matches)})
    return None


def _judge_version(expected: Expectation, component: Component, version: str) -> Judgement | None:
    verdict = component.judge(version, expected.accept, expected.deny)
    if verdict.word != "deny" and expected.accept and most_specific(list(expected.accept), version) is None:
        args = {"value": f"{component.title} {version}", "choices": listed(expected.accept)}
        return Judgement("unlisted", "fact-unlisted", args, "error", component.remedy, "inventory")
    if verdict.word == "accept":
        return None
    certainty = "" if verdict.certainty == "verified" else f" ({verdict.certainty})"
    words = f"{component.title} {version}: {verdict.reason}{certainty}" if verdict.match else verdict.reason
    args = {"verdict": words}
    if verdict.word == "deny":
        return Judgement("denied", "fact-denied-version", args, "error", component.remedy, verdict.source)
    id = "fact-doubtful-version" if verdict.match else "fact-doubtful-unproven"
    return Judgement("doubtful", id, args, "warning", component.remedy, verdict.source)


def _judge_plain(key: str, expected: Expectation, value: Any) -> Judgement | None:
    here = shown(key, value)
    if expected.equals is not None and value != expected.equals:
        return Judgement("differs", "fact-differs", {"value": here, "expected": shown(key, expected.equals)})
    if expected.one_of and value not in expected.one_of:
        return Judgement("unlisted", "fact-unlisted", {"value": here, "choices": listed(expected.one_of)})
    if (expected.at_least, expected.at_most) != (None, None) and not isinstance(value, (int, float)):
        return Judgement("differs", "fact-differs", {"value": here, "expected": "a number"})
    if expected.at_least is not None and value < expected.at_least:
        return Judgement("low", "fact-low", {"value": here, "limit": shown(key, expected.at_least)})
    if expected.at_most is not None and value > expected.at_most:
        return Judgement("high", "fact-high", {"value": here, "limit": shown(key, expected.at_most)})
    if expected.includes is not None:
        wanted = expected.includes if isinstance(expected.includes, (list, tuple)) else [expected.includes]
        values = value if isinstance(value, (list, tuple, str, Mapping)) else [value]
        if wanted and not any(each in values for each in wanted):
            args = {"value": listed(values) or "nothing", "choices": listed(wanted)}
            return Judgement("lacks", "fact-lacks", args)
    if expected.empty and value:
        text = listed(value) if isinstance(value, (list, tuple)) else str(value)
        return Judgement("present", "fact-present", {"value": text})
    return None


def judge_service(key: str, expected: Expectation, by_node: Mapping[str, object]) -> Judgement | None:
    """Whether a service's nodes differ in `key`, or must and don't; the words name each node with its value."""
    values = list(by_node.values())
    each = ", ".join(f"{node} {shown(key, value)}" for node, value in sorted(by_node.items()))
    if expected.equal_on_service and not all(
        _close(value, other, expected.tolerance) for value in values for other in values
    ):
        return Judgement("uneven", "fact-uneven", {"values": each})
    known = [repr(one) for value in values for one in _elements(value)]
    if expected.distinct_on_service and len(set(known)) < len(known):
        return Judgement("shared", "fact-shared", {"values": each})
    return None


def _elements(value: object) -> Sequence[object]:
    """What must not stand on two nodes: of a list each element."""
    if isinstance(value, (list, tuple)):
        return list(dict.fromkeys(value))
    return () if value is None else (value,)


def _close(one: object, other: object, tolerance: float) -> bool:
    if tolerance and isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return abs(one - other) <= tolerance * max(abs(one), abs(other))
    return bool(one == other)


def shown(key: str, value: object) -> str:
    """A value for a person; bytes also in GiB, which inventories count memory and disks in."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes") and isinstance(value, (int, float)):
        return f"{size(value)} ({value / GIB:.1f} GiB)"
    return f"{value:g}" if isinstance(value, float) else str(value)


def listed(values: object) -> str:
    """Several values for a person."""
    return ", ".join(str(each) for each in cast("list[object]", values))
