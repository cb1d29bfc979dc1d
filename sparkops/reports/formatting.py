"""Values and amounts as words for a person. It must not know reports or terminals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b")
NAMED = 4
BEGINNING = 100


def safe(text: object) -> str:
    """Without control characters: node answers must not drive a terminal."""
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


def names(each: Sequence[str]) -> str:
    """Some names, and how many more."""
    if len(each) <= NAMED + 1:
        return ", ".join(each)
    return f"{', '.join(each[:NAMED])} and {len(each) - NAMED} more"


def value(key: str, found: Any) -> str:
    """A value of a state: yes and no, lists with commas, bytes as such where the key says so."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, (list, tuple)):
        return ", ".join(value("", each) for each in found)
    if isinstance(found, (int, float)) and (key == "size" or key.endswith("_bytes")):
        return size(found)
    return str(found)


def size(count: float | None) -> str:
    """Bytes in decimal units, as disks and networks are sold: `71.2 GB`."""
    number = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def duration(seconds: float) -> str:
    """`45 s`, `2 min 25 s`, `1 h 10 min`."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
