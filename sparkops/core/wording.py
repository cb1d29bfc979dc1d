"""The words of every error, violation and notice that has an id, made from `knowledge/errors/*.yml` and its arguments.

An entry is `id: {message, fix, cause}`, and `fix_command` where a command without an inventory needs another way out.
Templates are Python format strings; these formats are added: `bytes` (`4.2 GB`), `seconds` (`3 min 5 s`), `list`
(`a, b and 3 more`) and `error` (the message of an error on the wire). Not for nodes: they send ids and arguments.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

FrontEnd = Literal["inventory", "command"]
"""Who shows it: a command that works on an inventory, or one that is given everything in its arguments."""
LISTED = 3
"""Items of a list that are named."""


class Entry(NamedTuple):
    """What is known of one id. `cause` is the longer text of `sparkops explain`.

    A tuple, because the help of a command waits for this module and needs dataclasses for nothing else.
    """

    id: str
    message: str
    fix: str = ""
    fix_command: str = ""
    cause: str = ""


@cache
def entries() -> Mapping[str, Entry]:
    """All entries by id. Raises ValueError for an id that stands in two files."""
    import yaml  # only a run that has an error to show reads the catalogue; --help imports neither it nor pathlib

    from sparkops.core import data

    found: dict[str, Entry] = {}
    for path in sorted((data.bundled("knowledge") / "errors").glob("*.yml")):
        for identity, fields in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            if identity in found:
                raise ValueError(f"{path.name}: the id {identity} stands in another file too")
            found[identity] = Entry(id=identity, **{key: str(value).strip() for key, value in fields.items()})
    return found


def words(identity: str, args: Mapping[str, Any], front_end: FrontEnd = "inventory") -> tuple[str, str]:
    """The message and the fix. An id or argument that the catalogue lacks is shown raw, never hidden."""
    entry = entries().get(identity)
    if entry is None:
        return ", ".join([identity, *(f"{key}: {value}" for key, value in args.items())]), ""
    fix = entry.fix_command if front_end == "command" and entry.fix_command else entry.fix
    return _Formatter().vformat(entry.message, (), args), _Formatter().vformat(fix, (), args)


def notice(message: object) -> str:
    """The words of a notice that travelled as `{id, args}`; anything else as its text."""
    if isinstance(message, Mapping) and isinstance(message.get("args"), Mapping):
        return words(str(message.get("id")), message["args"])[0]
    return str(message)


class _Formatter(string.Formatter):
    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return kwargs.get(str(key), f"({key} not given)")

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec == "bytes" and isinstance(value, (int, float)):
            return size(value)
        if format_spec == "seconds" and isinstance(value, (int, float)):
            return duration(value)
        if format_spec == "list" and isinstance(value, (list, tuple)):
            more = len(value) - LISTED
            return ", ".join(map(str, value[:LISTED])) + (f" and {more} more" if more > 0 else "")
        if format_spec == "error" and isinstance(value, Mapping):
            if not value.get("id"):
                return str(value.get("what", "unknown error"))
            return words(str(value["id"]), value.get("args") or {})[0]
        if format_spec in ("bytes", "seconds", "list", "error"):
            return str(value)
        return str(super().format_field(value, format_spec))


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
