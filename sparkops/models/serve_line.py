"""A `vllm serve …` line as the engine's own parser reads it: long, short and abbreviated names, `--no-x`, dotted JSON.

It records what the parser would refuse as problems instead of stopping, so that all are reported. What the values
mean to the engine is `effective`'s business; it must not know a model.

Source: the engine's argparse subclass (vllm/utils/argparse_utils.py) and Python's argparse, whose rules it follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sparkops.models import engine as kinds
from sparkops.models import shell_line
from sparkops.models.engine import Engine

Refused: TypeAlias = Literal["unknown", "ambiguous", "value", "choice", "words", "place"]

NEGATIVE = re.compile(r"^-(?:\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)$")
SIZE = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
STEPS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
PLAIN_JSON = ("speculative-config", "watermark-config", "diffusion-config")
"""JSON flags in which the parser takes no sizes like 80m, where it takes them in others."""

AUTO = -1
"""What `--max-model-len auto` is read as."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What the parser refuses: why, at which flag (as it was written), and the word that it stumbles over."""

    kind: Refused
    flag: str
    message: str
    word: str = ""
    near: str = ""


@dataclass(frozen=True)
class ServeLine:
    """What was given: the model, each flag's value under its long name without dashes, and what the parser refuses.

    A pair's value is true or false, that of a JSON flag what its JSON says, of one with several words a tuple.
    `spelled` maps a long name to how it was written, `abbreviated` the shortened ones to their long names.
    `environment` holds the `NAME=value` words in front of the command.
    """

    model: str
    arguments: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    spelled: Mapping[str, str] = field(default_factory=dict)
    abbreviated: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def get(self, flag: str) -> Any:
        """The given value of a flag; None where it was not given."""
        return self.arguments.get(flag)

    def mapping(self, flag: str) -> Mapping[str, Any]:
        """The given value of a JSON flag; empty where it was not given or is no mapping."""
        value = self.arguments.get(flag)
        return value if isinstance(value, Mapping) else {}


def parse_text(text: str, engine: Engine) -> ServeLine:
    """A line as people paste it, with its shell or `docker run`. Raises ValueError for an open quote, or nothing."""
    if not text.strip():
        raise ValueError("there is no command in it")
    environment, words = shell_line.split(text)
    return _line(environment, words, engine, not shell_line.SERVER.search(text))


def parse(words: Sequence[str], engine: Engine) -> ServeLine:
    """The words of a command line, from `vllm serve` on or what surrounds it (variables, `docker run …`)."""
    environment, rest = shell_line.command(words)
    return _line(environment, rest, engine, not any(map(shell_line.SERVER.match, words)))


def _line(environment: Mapping[str, str], words: Sequence[str], engine: Engine, serve: bool) -> ServeLine:
    normal = _normal(list(words))
    reading = _Reading(engine, serve)
    if serve:
        normal = _model_first(normal)
        reading.place(normal)
    reading.take(_dotted(normal))
    return ServeLine(
        model=reading.model,
        arguments=reading.arguments,
        problems=tuple(reading.problems),
        spelled=reading.spelled,
        abbreviated=reading.abbreviated,
        environment=environment,
    )


def size(text: str) -> int:
    """`8192`, `8k` (8000), `8K` (8192), `20G`. Raises ValueError."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        return int(text)
    number, step = match.groups()
    return int(float(number) * STEPS[step]) if step.islower() else int(number) * STEPS[step]


def _model_first(words: list[str]) -> list[str]:
    """`vllm serve` takes `--model X` for the model's word and puts it first, whatever else is there."""
    for index, word in enumerate(words):
        if word == "--model" and index + 1 < len(words):
            return [words[index + 1], *words[:index], *words[index + 2 :]]
        if word.startswith("--model="):
            return [word.removeprefix("--model="), *words[:index], *words[index + 1 :]]
    return words


def _normal(words: list[str]) -> list[str]:
    """Underscores in names become dashes; `-O3` and `-O 3` become the long flag."""
    normal: list[str] = []
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, sign, value = word.partition("=")
            head, dot, keys = name[2:].partition(".")
            normal.append(f"--{head.replace('_', '-')}{dot}{keys}{sign}{value}")
        elif word.startswith("-O") and len(word) > 2 and "." not in word:
            normal += ["--optimization-level", word[3:] if word[2] == "=" else word[2:]]
        elif word == "-O" and index + 1 < len(words) and words[index + 1] in {"0", "1", "2", "3"}:
            normal.append("--optimization-level")
        else:
            normal.append(word)
    return normal


def _dotted(words: list[str]) -> list[str]:
    """`--flag.key value` words gathered into one JSON a flag, at the end, where it wins over JSON in one word."""
    plain: list[str] = []
    gathered: dict[str, dict[str, object]] = {}
    rest = iter(words)
    for word in rest:
        name, sign, text = word.partition("=")
        if not (word.startswith("-") and "." in name) or NEGATIVE.match(word):
            plain.append(word)
            continue
        value = text if sign else next(rest, None)
        if value is None:  # the engine finds no word for it either
            plain.append(word)
            continue
        key, *path = name.removesuffix("+").split(".")
        content: Any = value.split(",") if name.endswith("+") else _dotted_value(value)
        for each in reversed(path):
            content = {each: content}
        _merge(gathered.setdefault(key, {}), content)
    for key, whole in gathered.items():
        plain += [key, json.dumps(whole)]
    return plain


def _dotted_value(text: str) -> object:
    for read in (json.loads, size):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _merge(into: dict[str, Any], given: Mapping[str, Any]) -> None:
    for key, value in given.items():
        before = into.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            _merge(before, value)
        else:
            into[key] = before + value if isinstance(value, list) and isinstance(before, list) else value


class _Reading:
    """One pass over the words, as argparse makes it. `serve`: they are those of `vllm serve`; the API server's module
    takes a word for the model too, and does not use it."""

    def __init__(self, engine: Engine, serve: bool) -> None:
        self.engine = engine
        self.serve = serve
        self.alone = ""
        self.model = ""
        self.arguments: dict[str, object] = {}
        self.spelled: dict[str, str] = {}
        self.abbreviated: dict[str, str] = {}
        self.problems: list[Problem] = []
        self.unsure = False

    def take(self, words: list[str]) -> None:
        """Read all words."""
        position = 0
        while position < len(words):
            word = words[position]
            position += 1
            if word == "--":
                for each in words[position:]:
                    self._loose_word(each)
                return
            if not _is_flag(word):
                self._loose_word(word)
                continue
            name, sign, value = self._parted(word)
            following: list[str] = []
            while (
                not sign and position + len(following) < len(words) and not _is_flag(words[position + len(following)])
            ):
                following.append(words[position + len(following)])
            position += self._flag(name, [value] if sign else following, bool(sign))

    def place(self, words: list[str]) -> None:
        """A served name is refused where no model stands first (since 0.17)."""
        names = {word.partition("=")[0] for word in words}
        if words and words[0].startswith("-") and "--served-model-name" in names and "--config" not in names:
            self._refuse(
                "place",
                "--served-model-name",
                "`model` should be provided as the first positional argument when using `vllm serve`",
            )

    def _loose_word(self, word: str) -> None:
        if not self.alone:
            self.alone = word
            self.model = word if self.serve else self.model
        elif not self.unsure:
            self._refuse("words", word, f"unrecognized arguments: {word}", word)

    def _parted(self, word: str) -> tuple[str, str, str]:
        """Name, sign and value of one word; `-n2` is a one-letter flag with its value."""
        name, sign, value = word.partition("=")
        if len(name) > 2 and name[1] != "-" and name[1:] not in self.engine.short and name[1] in self.engine.short:
            return name[:2], "=", word[2:].removeprefix("=")
        return name, sign, value

    def _flag(self, written: str, words: list[str], joined: bool) -> int:
        """One flag; how many of the words that follow it are its own."""
        found = self._resolve(written)
        if found is None:
            self.unsure = True  # whatever follows may have been its value
            return 0
        flag, positive = found
        kind = self.engine.flags[flag]
        self.spelled[flag] = written
        if kind in (kinds.PAIR, kinds.SWITCH):
            if joined:
                self._refuse("value", written, f"argument {written}: ignored explicit argument {words[0]!r}", words[0])
            self.arguments[flag] = positive
            return 0
        self.unsure = kind == kinds.LOOSE
        if not words and kind != kinds.LOOSE:
            least = "at least one argument" if kind in _MANY else "one argument"
            self._refuse("value", written, f"argument {written}: expected {least}")
            return 0
        own = words if kind in _MANY and not joined else words[:1]
        self._value(flag, written, kind, own)
        return 0 if joined else len(own)

    def _value(self, flag: str, written: str, kind: str, words: list[str]) -> None:
        try:
            sizes = bool(self.engine.behaviour.get("json_sizes", False)) and flag not in PLAIN_JSON
            values = tuple(_read(kind, _expanded(word) if sizes and kind == kinds.JSON else word) for word in words)
        except ValueError as error:
            self._refuse("value", written, f"argument {written}: {_complaint(kind, words)}: {error}", " ".join(words))
            return
        value: object = values if kind in _MANY else values[0]
        known = self.engine.choices.get(flag, ())
        for word in words if known else ():
            if word not in known and not ("None" in known and word == ""):
                listed = ", ".join(repr(each) for each in known)
                self._refuse(
                    "choice", written, f"argument {written}: invalid choice: {word!r} (choose from {listed})", word
                )
                return
        if flag == "model":
            self.model = str(value)
        self.arguments[flag] = value

    def _resolve(self, written: str) -> tuple[str, bool] | None:
        """The long name of a flag, and whether it is turned on; None (and a problem) where the parser knows none."""
        if not written.startswith("--"):
            return self._short(written)
        exact = self._named(written[2:])
        if exact is not None:
            return exact
        matches = {name: self._named(name) for name in self._names() if name.startswith(written[2:])}
        meant = {each for each in matches.values() if each}
        if len(meant) == 1:
            self.abbreviated[written] = f"--{min(matches, key=len)}"
            return meant.pop()
        if meant:
            could = ", ".join(f"--{name}" for name in sorted(matches))
            self._refuse("ambiguous", written, f"ambiguous option: {written} could match {could}", written)
        else:
            self._refuse("unknown", written, f"unrecognized arguments: {written}", written)
        return None

    def _short(self, written: str) -> tuple[str, bool] | None:
        short = self.engine.short
        meant = {short[name] for name in short if name.startswith(written[1:])}
        if written[1:] in short or len(meant) == 1:
            return short.get(written[1:]) or meant.pop(), True
        self._refuse("unknown", written, f"unrecognized arguments: {written}", written)
        return None

    def _names(self) -> list[str]:
        pairs = [f"no-{flag}" for flag, kind in self.engine.flags.items() if kind == kinds.PAIR]
        return [*self.engine.flags, *self.engine.inverse, *pairs]

    def _named(self, name: str) -> tuple[str, bool] | None:
        flags, inverse = self.engine.flags, self.engine.inverse
        if name in flags:
            return name, True
        if name in inverse:
            return inverse[name], False
        if name.startswith("no-"):
            bare = name[3:]
            if flags.get(bare) == kinds.PAIR:
                return bare, False
            if bare in inverse:
                return inverse[bare], True
        return None

    def _refuse(self, kind: Refused, flag: str, message: str, word: str = "") -> None:
        self.problems.append(Problem(kind, flag, message, word))


def _is_flag(word: str) -> bool:
    """Whether argparse takes a word for a flag: a dash in front, and neither a number nor with a space in it."""
    if not word.startswith("-") or word == "-" or NEGATIVE.match(word):
        return False
    return " " not in word.partition("=")[0]


def _read(kind: str, word: str) -> object:
    """The value of one word. Raises ValueError."""
    if word in ("", "None") and kind not in (kinds.TEXT, kinds.JSON_OR_TEXT):
        return None
    if kind == kinds.LENGTH and word.strip().lower() == "auto":
        return AUTO
    if kind == kinds.JSON_OR_TEXT and not re.fullmatch(r"\s*{.*}\s*", word, re.DOTALL):
        return word
    read = _READ.get(kind, str)
    return read(word)


def _expanded(text: str) -> str:
    """JSON with the sizes outside of its texts written out: `{"cpu_bytes_to_use": 80m}`."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    return "".join(
        part if index % 2 else re.sub(rf"\b{SIZE.pattern}\b", lambda match: str(size(match[0])), part)
        for index, part in enumerate(parts)
    )


def _complaint(kind: str, words: Sequence[str]) -> str:
    what = {kinds.DECIMAL: "a number", kinds.JSON: "JSON", kinds.JSON_OR_TEXT: "JSON"}.get(kind, "a whole number")
    return f"Value {' '.join(words)} cannot be converted to {what}"


_MANY = (kinds.SEVERAL, kinds.INTEGERS, kinds.LOOSE)
_READ: Mapping[str, Any] = {
    kinds.INTEGER: int,
    kinds.INTEGERS: int,
    kinds.SIZE: size,
    kinds.LENGTH: size,
    kinds.DECIMAL: float,
    kinds.JSON: json.loads,
    kinds.JSON_OR_TEXT: json.loads,
}
