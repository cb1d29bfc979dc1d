"""The types of configuration fields, from a wheel's annotations to the notation of `knowledge/engines`.

The notation is Python's own: `int(ge=1) | None`, `Literal['a', 'b']`, `list[str]`, the name of another configuration
or of a list of words; `upper(X)` and `lower(X)` take the words in any case; `Any` is what cannot be judged. It must not
know flags.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tools.wheel_source import UNKNOWN, Module

ANY, NONE = "Any", "None"
PLAIN = ("bool", "int", "float", "str")
LISTS = ("list", "List", "set", "Set", "tuple", "Tuple", "Sequence", "frozenset")
MAPPINGS = ("dict", "Dict", "Mapping")
BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
LENGTHS = ("min_length", "max_length")
WORD = re.compile(r"[A-Za-z0-9_*:.,-]+")


@dataclass
class Types:
    """Reads annotations; gathers the classes and the lists of words that they name."""

    classes: dict[str, tuple[Module, ast.ClassDef]] = field(default_factory=dict)
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, module: Module, node: ast.expr | None) -> str:
        """An annotation in the notation."""
        match node:
            case ast.Constant(value=None):
                return NONE
            case ast.Constant(value=str(quoted)):
                return self.text(module, ast.parse(quoted, mode="eval").body)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return union([self.text(module, left), self.text(module, right)])
            case ast.Subscript():
                return self._subscript(module, node)
            case ast.Name(id=name):
                return self._named(module, name)
        return ANY

    def _named(self, module: Module, name: str) -> str:
        if name in PLAIN:
            return name
        if name in LISTS:
            return f"list[{ANY}]"
        if name in MAPPINGS:
            return f"dict[str, {ANY}]"
        if name == "Path":
            return "str"
        found = module.find(name)
        if found is None:
            return ANY
        where, definition = found
        if isinstance(definition, ast.ClassDef):
            return self._class(where, definition)
        if not isinstance(definition, (ast.Assign, ast.AnnAssign)) or definition.value is None:
            return ANY
        words = where.literal(definition.value)
        return self.text(where, definition.value) if words is None else self.listed(name, words)

    def listed(self, name: str, words: Iterable[Any]) -> str:
        """The type of a list of words, under its name where it is one of words only."""
        given = list(dict.fromkeys(words))
        texts = [each for each in given if isinstance(each, str)]
        if texts == given and all(WORD.fullmatch(each) for each in texts):
            self.words[name] = tuple(texts)
            return name
        return f"Literal[{', '.join(map(repr, given))}]"

    def _class(self, module: Module, node: ast.ClassDef) -> str:
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if bases & {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}:
            return self._enumeration(module, node, strings=bool(bases & {"str", "StrEnum"}))
        if bases & {"dict", "TypedDict", "UserDict"}:
            return f"dict[str, {ANY}]"
        if not any("config" in ast.unparse(each) or "dataclass" in ast.unparse(each) for each in node.decorator_list):
            return ANY
        self.classes.setdefault(node.name, (module, node))
        return node.name

    def _enumeration(self, module: Module, node: ast.ClassDef, strings: bool) -> str:
        """What JSON can say of it: its values."""
        values = [module.value(each.value) for each in node.body if isinstance(each, ast.Assign)]
        if strings and all(isinstance(each, str) for each in values):
            return self.listed(node.name, values)
        numbers = [each for each in values if isinstance(each, int)]
        return f"Literal[{', '.join(map(repr, numbers))}]" if numbers and len(numbers) == len(values) else ANY

    def members(self, module: Module, name: str) -> str:
        """The type of an enumeration's names in any case; ANY where there is no such enumeration."""
        found = module.find(name)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return ANY
        names = [
            target.id
            for each in found[1].body
            if isinstance(each, ast.Assign)
            for target in each.targets
            if isinstance(target, ast.Name) and not target.id.startswith("_")
        ]
        self.words[name] = tuple(names)
        return f"upper({name})"

    def _subscript(self, module: Module, node: ast.Subscript) -> str:
        name = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return self._literal(module, node)
        if name == "Annotated":
            if not all(ast.unparse(each).startswith("Field(") for each in inner[1:]):
                return ANY  # read by code of its own
            return bounded(self.text(module, inner[0]), *(bounds(module, each) for each in inner[1:]))
        if name in ("Optional", "Union"):
            return union([*(self.text(module, each) for each in inner), *([NONE] if name == "Optional" else [])])
        if name in LISTS:
            kinds = {self.text(module, each) for each in inner if not _ellipsis(each)}
            return f"list[{kinds.pop() if len(kinds) == 1 else ANY}]"
        if name in MAPPINGS and len(inner) == 2:
            return f"dict[{self.text(module, inner[0])}, {self.text(module, inner[1])}]"
        return ANY

    def _literal(self, module: Module, node: ast.Subscript) -> str:
        words = module.literal(node)
        return ANY if words is None else f"Literal[{', '.join(map(repr, words))}]"


def union(types: Iterable[str]) -> str:
    """Several types as one; ANY takes all."""
    parts = list(dict.fromkeys(part for each in types for part in split(each)))
    return ANY if ANY in parts else " | ".join(parts)


def split(text: str) -> list[str]:
    """The members of a union."""
    members: list[str] = []
    node: ast.expr = ast.parse(text, mode="eval").body
    while isinstance(node, ast.BinOp):
        members.insert(0, ast.unparse(node.right))
        node = node.left
    return [ast.unparse(node), *members]


def bounds(module: Module, node: ast.expr | None) -> dict[str, Any]:
    """The bounds that a `Field(ge=1)` sets; none for anything else."""
    if not isinstance(node, ast.Call):
        return {}
    found = {word.arg: module.value(word.value) for word in node.keywords if word.arg in (*BOUNDS, *LENGTHS)}
    return {str(name): value for name, value in found.items() if value is not UNKNOWN}


def bounded(text: str, *limits: dict[str, Any]) -> str:
    """The type with bounds at its numbers, and lengths at its texts, lists and mappings."""
    given = {name: value for each in limits for name, value in each.items()}
    numbers = ", ".join(f"{name}={value!r}" for name, value in given.items() if name in BOUNDS)
    lengths = ", ".join(f"{name}={value!r}" for name, value in given.items() if name in LENGTHS)
    parts = []
    for each in split(text):
        words = numbers if each in ("int", "float") else lengths if each.startswith(("str", "list[", "dict[")) else ""
        parts.append(f"{each}({words})" if words else each)
    return " | ".join(parts)


def _ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis
