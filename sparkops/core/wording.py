"""The words of every error, violation and notice that has an id, made from `knowledge/errors/*.yml` and its arguments.

An entry is `id: {message, fix, cause}`, and `fix_command` where a command without an inventory needs another way out.
Templates are Python format strings; these formats are added: `bytes` (`4.2 GB`), `seconds` (`3 min 5 s`), `n NOUN`
(`1 file`, `3 files`), `list` (`a, b and 3 more`), `lines` (messages, each on a line of its own), `aside` (` (text)`,
nothing for an empty one), `or WORDS` (these where there is none) and `error` (the words of another id, nothing where
there is none). Not for nodes: they send ids and arguments.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

from sparkops.core.messages import Fields, reason_from
from sparkops.core.nested import PLAIN, mapped

_Message = TypeVar("_Message", bound="Message")
Severity: TypeAlias = Literal["error", "warning", "info"]
FrontEnd = Literal["inventory", "command"]
"""Who shows it: a command that works on an inventory, or one that is given everything in its arguments."""
LISTED = 3
"""Items of a list that are named."""
LINES = 12
"""Messages that are shown; of more, the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is known of one id. `cause` is the longer text of `sparkops explain`."""

    id: str
    message: str
    fix: str = ""
    fix_command: str = ""
    cause: str = ""


@cache
def entries() -> Mapping[str, Entry]:
    """All entries by id. Raises ValueError for an id that stands in two files."""
    from sparkops.core import data  # only what shows an error reads the catalogue; --help does not import pathlib

    found: dict[str, Entry] = {}
    for path in sorted((data.bundled("knowledge") / "errors").glob("*.yml")):
        for identity, texts in (data.parsed(path) or {}).items():
            if identity in found:
                raise ValueError(f"{path.name}: the id {identity} stands in another file too")
            found[identity] = Entry(id=identity, **{key: str(value).strip() for key, value in texts.items()})
    return found


def explained(identity: str) -> tuple[Entry, ...]:
    """The entries that explain an id as it is shown, empty for no id.

    `ID:THING` is explained by ID; a requirement's violation, `REQUIREMENT.FACT-FAULT`, by all entries of that fault.
    """
    if entry := entries().get(identity.partition(":")[0]):
        return (entry,)
    if "." not in identity:
        return ()
    own = "fact-" + re.split(r"[.-]", identity)[-1]
    return tuple(entry for id, entry in entries().items() if id == own or id.startswith(own + "-"))


def words(identity: str, args: Mapping[str, object], front_end: FrontEnd = "inventory") -> tuple[str, str]:
    """The message and the fix. An id or argument that the catalogue lacks is shown raw, never hidden."""
    entry = entries().get(identity)
    if entry is None:
        return ", ".join([identity, *(f"{key}: {value}" for key, value in args.items())]), ""
    fix = entry.fix_command if front_end == "command" and entry.fix_command else entry.fix
    return _Formatter().vformat(entry.message, (), args), _Formatter().vformat(fix, (), args)


@dataclass(frozen=True, slots=True)
class Message:
    """An id with its arguments: why a step failed, what is unknown, a notice. The words are made where it is shown."""

    id: str
    args: Fields = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls: type[_Message], id: str, /, **args: object) -> _Message:
        """The message of an id in `knowledge/errors/`."""
        return cls(id, args)

    @classmethod
    def from_json(cls: type[_Message], value: object) -> _Message:
        """What another process answered; what is no message is itself one, `answer-not-understood`."""
        if reason := reason_from(value):
            return cls(reason["id"], reason["args"])
        return cls.of("answer-not-understood", answer=f"{value!r:.200}")

    def words(self, front_end: FrontEnd = "inventory") -> tuple[str, str]:
        """The message and the fix."""
        return words(self.id, self.args, front_end)

    @property
    def text(self) -> str:
        return self.words()[0]

    @property
    def fix(self) -> str:
        return self.words()[1]

    @property
    def full(self) -> str:
        """Text and fix."""
        return f"{self.text} → {self.fix}" if self.fix else self.text

    def as_json(self, front_end: FrontEnd = "inventory") -> dict[str, object]:
        """`id` and `args` for programs, `message` and `fix` for people."""
        message, fix = self.words(front_end)
        return {"id": self.id, "args": _plain(self.args), "message": message, "fix": fix}


def encoded(value: object, front_end: FrontEnd = "inventory") -> Any:
    """A value for programs: a message with its words, a dataclass by its fields, all else as it is."""

    def leaf(each: object) -> object:
        if isinstance(each, Message):
            return each.as_json(front_end)
        if is_dataclass(each):
            return {field.name: encoded(getattr(each, field.name), front_end) for field in fields(each)}
        return each

    return mapped(value, leaf)


def _plain(value: object) -> object:
    def leaf(each: object) -> object:
        if isinstance(each, Message):
            return {"id": each.id, "args": _plain(each.args)}
        return each if isinstance(each, PLAIN) else str(each)

    return mapped(value, leaf, str)


class _Formatter(string.Formatter):
    def get_value(self, key: int | str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        return kwargs.get(str(key), f"({key} not given)")

    def format_field(self, value: object, format_spec: str) -> str:
        if format_spec == "bytes" and isinstance(value, (int, float)):
            return size(value)
        if format_spec == "seconds" and isinstance(value, (int, float)):
            return duration(value)
        if format_spec.startswith("n "):
            return f"{value} {format_spec[2:]}" + ("" if value == 1 else "s")
        if format_spec == "list" and isinstance(value, (list, tuple)):
            more = len(value) - LISTED
            named = [
                self.format_field(each, "error") if isinstance(each, (Message, Mapping)) else str(each)
                for each in value[:LISTED]
            ]
            return ", ".join(named) + (f" and {more} more" if more > 0 else "")
        if format_spec == "lines" and isinstance(value, (list, tuple)):
            lines = [self.format_field(each, "full") for each in value[:LINES]]
            lines += [f"and {len(value) - LINES} more"] if len(value) > LINES else []
            return "".join(f"\n  {line}" for line in lines)
        if format_spec.startswith("or "):
            return format_spec[3:] if value is None else str(value)
        if format_spec == "aside":
            return f" ({value})" if value else ""
        if format_spec in ("error", "fix", "fix_command", "full"):
            if value is None:
                return ""
            message = value if isinstance(value, Message) else Message.from_json(value)
            text, fix = message.words("command" if format_spec == "fix_command" else "inventory")
            return text if format_spec == "error" else message.full if format_spec == "full" else fix
        if format_spec in ("bytes", "seconds", "list", "lines"):
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
