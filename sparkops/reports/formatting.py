"""Values and amounts as words for a person. It must not know reports or terminals."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sparkops.core.wording import Message, duration, size

if TYPE_CHECKING:
    from sparkops.core.plan import Step

DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
NAMED = 4
BEGINNING = 100


def safe(text: object) -> str:
    """Without control characters: node answers must not drive a terminal."""
    if isinstance(text, str) and text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in str(text))


def brief(text: str) -> str:
    """With long digests cut to twelve digits, as git and Docker show them."""
    return DIGEST.sub(r"\1…", text)


def beginning(reason: str) -> str:
    """Of a reason that the report tells in full, what tells it from others while the run goes on."""
    line = reason.splitlines()[0] if reason else ""
    return line if len(line) <= BEGINNING and line == reason else line[:BEGINNING].rstrip() + "…"


def count(number: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def moment(time: float) -> str:
    """A time in seconds since the epoch, in UTC: a report is read elsewhere."""
    return f"{_written(time, datetime.timezone.utc, '%Y-%m-%d %H:%M')} UTC"


def local(time: object, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time in seconds since the epoch, of the clocks here."""
    return _written(time, None, form)


def _written(time: object, zone: datetime.timezone | None, form: str) -> str:
    """ "?" for what a node may say and no calendar has."""
    if not isinstance(time, (int, float)):
        return "?"
    try:
        return datetime.datetime.fromtimestamp(time, zone).astimezone(zone).strftime(form)
    except (OverflowError, ValueError, OSError):
        return "?"


def names(each: Sequence[str]) -> str:
    """Some names, and how many more."""
    if len(each) <= NAMED + 1:
        return ", ".join(each)
    return f"{', '.join(each[:NAMED])} and {len(each) - NAMED} more"


def value(key: str, found: object) -> str:
    """A value of a state: yes and no, lists with commas, bytes as such where the key says so."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, (list, tuple)):
        return ", ".join(value("", each) for each in found)
    if isinstance(found, (int, float)) and (key == "size" or key.endswith("_bytes")):
        return size(found)
    return str(found)


def with_cost(service: str, steps: Sequence[Step]) -> str:
    """A service with what its interruption costs, by the slowest of its last starts."""
    seconds = max((each.outage_seconds for each in steps if each.outage_seconds is not None), default=None)
    return service if seconds is None else f"{service} (its last start took {duration(seconds)})"


def why_differs(step: Step) -> str:
    """What the node says of why a resource is not as declared (`why` in what was found); "" where it says nothing."""
    found = (step.before or {}).get("why") if step.changes else None
    text = found if isinstance(found, str) else Message.from_json(found).text if found else ""
    return " ".join(safe(text).split())
