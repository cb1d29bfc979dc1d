"""The configuration classes in a wheel: what each field takes, and the combinations that a class refuses.

A value that a validator may change before it is judged has the type `Any`; of the validators' own refusals those are
read that compare fields with each other and with constants. It must not know flags.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.wheel_refusals import refusals
from tools.wheel_source import Module
from tools.wheel_types import ANY, NONE, Types, bounded, bounds, union

UPPER = re.compile(r"\b(\w+)\[(?:\w+\.upper\(\)|\w+)\]")
SIMPLE = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Configurations:
    """All classes that `wanted` leads to, by name: their fields, what they refuse, and the lists of words they use."""

    fields: dict[str, dict[str, str]]
    refused: dict[str, dict[str, str]]
    words: dict[str, str]


@dataclass
class Reader:
    """Reads classes, and those that their fields name."""

    types: Types = field(default_factory=Types)

    def read(self) -> Configurations:
        """All classes that were asked for so far, and what they lead to."""
        fields: dict[str, dict[str, str]] = {}
        refused: dict[str, dict[str, str]] = {}
        while waiting := [name for name in self.types.classes if name not in fields]:
            for name in waiting:
                module, node = self.types.classes[name]
                fields[name] = self.fields(module, node)
                if found := refusals(module, node, fields[name]):
                    refused[name] = found
        words = {name: " ".join(sorted(words)) for name, words in self.types.words.items()}
        return Configurations(fields, refused, words)

    def fields(self, module: Module, node: ast.ClassDef) -> dict[str, str]:
        """Each field that a user may give, as `type = default`."""
        found: dict[str, str] = {}
        for base in node.bases:
            parent = module.find(ast.unparse(base))
            if parent is not None and isinstance(parent[1], ast.ClassDef):
                found |= self.fields(parent[0], parent[1])
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                if not _given(statement):
                    found.pop(name, None)
                    continue
                found[name] = self.field(module, node, name, statement)
        if _open(node):
            found["*"] = ANY
        return found

    def field(self, module: Module, node: ast.ClassDef, name: str, statement: ast.AnnAssign) -> str:
        """One field, as `type = default`."""
        kind = bounded(self.types.text(module, statement.annotation), bounds(module, statement.value))
        kind = self._validated(module, node, name, kind)
        if kind != ANY and NONE in ast.unparse(statement.annotation):
            kind = union([kind, NONE])
        return f"{kind}{_default(module, statement)}"

    def _validated(self, module: Module, node: ast.ClassDef, name: str, kind: str) -> str:
        """The type after what its validators do before the type is judged."""
        for mode, function in validators(node, name):
            body = ast.unparse(function)
            if mode == "wrap" and "value is None" in body:
                kind = union([kind, NONE])
            elif mode == "before" and ".lower().replace('-', '_')" in body:
                kind = f"lower({kind.replace(f' | {NONE}', '')})" + (f" | {NONE}" if NONE in kind else "")
            elif mode == "before" and ".upper()" in body and (named := _enumerations(module, body)):
                kind = self._names_in_any_case(module, named, body, kind)
            elif mode != "after" and not re.search(r"return \w+\(\*\*value\)\n\s+return value", body):
                return ANY
        return kind

    def _names_in_any_case(self, module: Module, enumerations: list[str], body: str, kind: str) -> str:
        if "dict[" in kind or "list[" in kind:
            return ANY
        automatic = ["upper('auto')"] if "== 'auto'" in body else []
        return union([*(self.types.members(module, each) for each in enumerations), *automatic, *_others(kind)])


def validators(node: ast.ClassDef, name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The validators of a field with their modes, in order."""
    for function in node.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [each for each in function.decorator_list if isinstance(each, ast.Call)]
        for call in calls:
            if ast.unparse(call.func).endswith("field_validator"):
                named = [each.value for each in call.args if isinstance(each, ast.Constant)]
                mode = next((ast.unparse(word.value) for word in call.keywords if word.arg == "mode"), "'after'")
                if name in named or "*" in named:
                    yield mode.strip("'"), function


def _enumerations(module: Module, body: str) -> list[str]:
    named = (match[1] for match in UPPER.finditer(body))
    return [each for each in dict.fromkeys(named) if each[0].isupper() and module.find(each) is not None]


def _others(kind: str) -> list[str]:
    return [each for each in kind.split(" | ") if each == NONE or each.startswith("Literal")]


def _given(statement: ast.AnnAssign) -> bool:
    """Whether a user may give a field: no class variable, and not left out of the constructor."""
    if "ClassVar" in ast.unparse(statement.annotation):
        return False
    words = statement.value.keywords if isinstance(statement.value, ast.Call) else ()
    return not any(word.arg == "init" and ast.unparse(word.value) == "False" for word in words)


def _default(module: Module, statement: ast.AnnAssign) -> str:
    """` = value`; ` = ...` for a default that is computed, nothing for a field that must be given."""
    if statement.value is None:
        return ""
    value = module.default(statement.value)
    if isinstance(value, SIMPLE):
        return f" = {value!r}"
    if not isinstance(statement.value, ast.Call) or statement.value.args:
        return " = ..."
    return " = ..." if any(word.arg in ("default", "default_factory") for word in statement.value.keywords) else ""


def _open(node: ast.ClassDef) -> bool:
    """Whether a class takes other keys than its fields, or changes them before they are judged."""
    head = " ".join(ast.unparse(each) for each in node.decorator_list)
    if "extra='allow'" in head or "extra='ignore'" in head:
        return True
    for function in node.body:
        decorators = " ".join(map(ast.unparse, getattr(function, "decorator_list", ())))
        if "model_validator" in decorators and "before" in decorators:
            body = ast.unparse(function)
            if ".pop(" in body or "setdefault" in body or re.search(r"^\s+\w+\[.*\] = ", body, re.MULTILINE):
                return True
    return False
