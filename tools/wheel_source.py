"""The Python source in a wheel, read without importing it: modules, the names in them, and values that are constant.

It must not know what the names mean to an engine.
"""

from __future__ import annotations

import ast
import operator
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

TYPE_CHECKING = "TYPE_CHECKING"
UNKNOWN = object()
"""What stands for a value that only running the code would tell."""

_CALLS: Mapping[str, Callable[[Any], Any]] = {
    "sorted": sorted,
    "list": list,
    "tuple": tuple,
    "set": tuple,
    "frozenset": tuple,
    "int": int,
    "str": str,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True, eq=False)
class Module:
    """One module: `names` holds what its top level defines, `imports` where the other names come from.

    What stands under `if TYPE_CHECKING` does not count: its `else` is what the engine runs with.
    """

    wheel: Wheel
    path: str
    tree: ast.Module

    @cached_property
    def names(self) -> dict[str, ast.stmt]:
        """Assignments, classes and functions of the top level; the first definition of a name counts."""
        found: dict[str, ast.stmt] = {}
        for node in _top(self.tree.body):
            for name in _defined(node):
                found.setdefault(name, node)
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Each imported name with its module and its name there ("" for a module itself)."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, (self._absolute(node), alias.name))
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name.partition(".")[0], (alias.name, ""))
        return found

    @cached_property
    def stars(self) -> tuple[str, ...]:
        """The modules of which everything is imported."""
        return tuple(module for module, name in self._sources() if name == "*")

    def _sources(self) -> Iterator[tuple[str, str]]:
        for node in self.tree.body:
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                yield self._absolute(node) if isinstance(node, ast.ImportFrom) else "", alias.name

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.path.removesuffix("/__init__.py").removesuffix(".py").split("/")
        up = node.level - (1 if self.path.endswith("/__init__.py") else 0)
        return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])

    def find(self, name: str) -> tuple[Module, ast.stmt] | None:
        """Where a name is defined, its imports followed through the wheel; None for what comes from elsewhere."""
        if name in self.names:
            return self, self.names[name]
        source = self.imports.get(name)
        if source is None:
            everything = (module for path in self.stars if (module := self.wheel.module(path)) is not None)
            return next((found for module in everything if (found := module.find(name)) is not None), None)
        module = self.wheel.module(source[0]) if source[1] else None
        return module.find(source[1]) if module is not None else None

    def value(self, node: ast.expr) -> Any:
        """The value of a constant expression; UNKNOWN for any other."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand) if isinstance(self.value(operand), (int, float)):
                return -self.value(operand)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.List(elts=elts) | ast.Tuple(elts=elts) | ast.Set(elts=elts):
                return self._sequence(elts)
            case ast.Dict(keys=keys, values=values):
                return self._mapping(keys, values)
            case ast.Name(id=name):
                return self.named(name)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return self._attribute(name, attribute)
            case ast.Call(func=ast.Name(id="get_args"), args=[argument]):
                words = self.literal(argument)
                return UNKNOWN if words is None else tuple(words)
            case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _CALLS:
                inner = self.value(argument)
                return UNKNOWN if inner is UNKNOWN else _CALLS[name](inner)
        return UNKNOWN

    def literal(self, node: ast.expr) -> list[Any] | None:
        """The words of a `Literal[...]`, those of literals inside it included; None for anything else."""
        if isinstance(node, ast.Name):
            found = self.find(node.id)
            assigned = _assigned(found[1]) if found else None
            return found[0].literal(assigned) if found and assigned is not None else None
        if not isinstance(node, ast.Subscript) or ast.unparse(node.value).rpartition(".")[2] != "Literal":
            return None
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        words: list[Any] = []
        for part in parts:
            inner = [self.value(part)] if isinstance(part, ast.Constant) else self.literal(part)
            if inner is None:
                return None
            words += inner
        return words

    def _sequence(self, elements: list[ast.expr]) -> Any:
        values: list[Any] = []
        for element in elements:
            value = self.value(element.value if isinstance(element, ast.Starred) else element)
            if value is UNKNOWN:
                return UNKNOWN
            values += value if isinstance(element, ast.Starred) else [value]
        return tuple(values)

    def _mapping(self, keys: list[ast.expr | None], values: list[ast.expr]) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(keys, values, strict=True):
            named = self.value(key) if key is not None else UNKNOWN
            if named is UNKNOWN:
                return UNKNOWN
            found[named] = self.value(value)
        return found

    def _arithmetic(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if not all(isinstance(side, (int, float)) for side in (left, right)):
            return UNKNOWN
        return _OPERATORS[type(node.op)](left, right) if type(node.op) in _OPERATORS else UNKNOWN

    def named(self, name: str) -> Any:
        found = self.find(name)
        assigned = _assigned(found[1]) if found else None
        return found[0].value(assigned) if found and assigned is not None else UNKNOWN

    def _attribute(self, name: str, attribute: str) -> Any:
        """A class's default (`ModelConfig.seed`) or a constant of a module (`envs.X` is none)."""
        found = self.find(name)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return UNKNOWN
        bases = " ".join(map(ast.unparse, found[1].bases))
        if "Enum" in bases and "Int" not in bases:
            return UNKNOWN  # a member is no plain value
        for node in found[1].body:
            assigned = _assigned(node)
            if attribute in _defined(node) and assigned is not None:
                return found[0].default(assigned)
        return UNKNOWN

    def default(self, node: ast.expr) -> Any:
        """The value of a field's right side: itself, or what `Field(default=…)` says."""
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("Field", "field"):
            named = {word.arg: word.value for word in node.keywords}
            if "default" in named:
                return self.value(named["default"])
            if node.args:
                return self.value(node.args[0])
            return UNKNOWN
        return self.value(node)


@dataclass(frozen=True, eq=False)
class Wheel:
    """A wheel's Python files, parsed as they are asked for."""

    path: Path
    parsed: dict[str, Module] = field(default_factory=dict)

    @cached_property
    def archive(self) -> zipfile.ZipFile:
        """The open file."""
        return zipfile.ZipFile(self.path)

    @cached_property
    def files(self) -> frozenset[str]:
        """The names in it."""
        return frozenset(self.archive.namelist())

    def module(self, name: str) -> Module | None:
        """A module by its dotted name; None where the wheel has none."""
        base = name.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in self.files:
                return self.file(path)
        return None

    def file(self, path: str) -> Module:
        """A module by its path in the wheel. Raises SyntaxError for one that this Python cannot parse."""
        if path not in self.parsed:
            self.parsed[path] = Module(self, path, ast.parse(self.archive.read(path)))
        return self.parsed[path]

    def text(self, path: str) -> str:
        """A file's text."""
        return self.archive.read(path).decode()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The single-line headers of METADATA."""
        path = next(name for name in self.files if name.endswith(".dist-info/METADATA"))
        head = self.text(path).partition("\n\n")[0]
        return dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from () if TYPE_CHECKING in ast.unparse(node.test) else _top(node.body)
            yield from _top(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _top(node.body)
        else:
            yield node


def _defined(node: ast.stmt) -> list[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _assigned(node: ast.stmt) -> ast.expr | None:
    return node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
