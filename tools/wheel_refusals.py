"""The refusals of a configuration class that are comparisons of its fields: conditions, each with the engine's words.

A condition is read only where everything in it is a field, a constant or an operator, and where nothing before it in
the validators changed one of its fields. It must not know what the fields mean.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

from sparkops.models.architecture import expressions
from tools.wheel_source import UNKNOWN, Module


def refusals(module: Module, node: ast.ClassDef, fields: Mapping[str, str]) -> dict[str, str]:
    """What the class refuses: each condition over its fields, with the words of the error."""
    walk = _Walk(module, frozenset(fields))
    for function in _after(node):
        names = _fields_of(function)
        for name in names or [""]:
            walk.known = {function.args.args[1].arg: name} if name and len(function.args.args) > 1 else {}
            walk.aliases = {}
            walk.body(function.body, [])
    return walk.found


@dataclass
class _Walk:
    """One pass over the validators of a class."""

    module: Module
    fields: frozenset[str]
    found: dict[str, str] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, ast.expr] = field(default_factory=dict)

    def body(self, statements: list[ast.stmt], conditions: list[ast.expr]) -> None:
        """Statements that are reached under these conditions."""
        conditions = list(conditions)
        for statement in statements:
            match statement:
                case ast.If(test=test, body=then, orelse=otherwise):
                    self.body(then, [*conditions, test])
                    self.body(otherwise, [*conditions, ast.UnaryOp(ast.Not(), test)])
                    if then and isinstance(then[-1], ast.Return):
                        conditions.append(ast.UnaryOp(ast.Not(), test))
                case ast.Raise(exc=ast.Call(args=[words, *_])):
                    self._refuse(conditions, words)
                case ast.Assert(test=test, msg=words):
                    self._refuse([*conditions, ast.UnaryOp(ast.Not(), test)], words or ast.Constant("assertion"))
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.aliases[name] = value
                case _:
                    self._changes(statement)

    def _changes(self, statement: ast.stmt) -> None:
        """Fields that a statement may change."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                self.changed.add(node.attr)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.aliases[node.id] = ast.Call(ast.Name("unknown"), [], [])
            if isinstance(node, ast.Call) and "self" in ast.unparse(node.func):
                self.changed |= self.fields  # a method may change any

    def _refuse(self, conditions: list[ast.expr], words: ast.expr) -> None:
        parts = [self._plain(each) for each in conditions]
        if not parts or None in parts:
            return
        text = " and ".join(f"({part})" if " or " in str(part) or " if " in str(part) else str(part) for part in parts)
        try:
            read = expressions.names(text)
            expressions.compiled(text)
        except (ValueError, SyntaxError):
            return
        if read and read <= self.fields and not read & self.changed:
            self.found[text] = " ".join(self._words(words).split())

    def _plain(self, node: ast.expr) -> str | None:
        """A condition over bare field names; None where something in it is not known."""
        plain = _Plain(self).visit(deepcopy(node))
        text = ast.unparse(ast.fix_missing_locations(plain))
        return None if "unknown" in text else text

    def _words(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=value):
                return str(value)
            case ast.JoinedStr(values=values):
                return "".join(self._words(each) for each in values)
            case ast.Name() | ast.Attribute() if self._plain(node) in self.fields:
                return f"{{{self._plain(node)}}}"
            case ast.FormattedValue(value=value):
                constant = self.module.value(value)
                if constant is not UNKNOWN:
                    return str(constant)
                plain = self._plain(value)
                return f"{{{plain}}}" if plain in self.fields else "…"
            case ast.BinOp(left=left, right=right):
                return self._words(left) + self._words(right)
        return "…"


class _Plain(ast.NodeTransformer):
    """`self.x` becomes `x`, names become what they were assigned, constants of the module their values."""

    def __init__(self, walk: _Walk) -> None:
        self.walk = walk

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in self.walk.fields:
            return ast.Name(node.attr, ast.Load())
        return _UNKNOWN

    def visit_NamedExpr(self, node: ast.NamedExpr) -> ast.expr:
        self.walk.aliases[node.target.id] = node.value
        visited: ast.expr = self.visit(node.value)
        return visited

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.walk.known:
            return ast.Name(self.walk.known[node.id], ast.Load())
        if node.id in self.walk.aliases:
            aliased = self.walk.aliases[node.id]
            self.walk.aliases = {name: each for name, each in self.walk.aliases.items() if name != node.id}
            visited: ast.expr = self.visit(deepcopy(aliased))
            self.walk.aliases[node.id] = aliased
            return visited
        if node.id in expressions.FUNCTIONS:
            return node
        return self._constant(node)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        constant = self.walk.module.value(node)
        if constant is not UNKNOWN:
            return _literal(constant)
        visited = self.generic_visit(node)
        assert isinstance(visited, ast.Call)
        return visited if isinstance(node.func, ast.Name) and node.func.id in expressions.FUNCTIONS else _UNKNOWN

    def visit_Set(self, node: ast.Set) -> ast.expr:
        return self._constant(node)

    def visit_List(self, node: ast.List) -> ast.expr:
        return self._constant(node)

    def _constant(self, node: ast.expr) -> ast.expr:
        constant = self.walk.module.value(node)
        return _UNKNOWN if constant is UNKNOWN else _literal(constant)


_UNKNOWN = ast.Name("unknown", ast.Load())


def _literal(value: object) -> ast.expr:
    return ast.parse(repr(tuple(value) if isinstance(value, (list, set, frozenset)) else value), mode="eval").body


def _after(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """The functions that run over a class's read fields, in the order in which they run."""
    functions = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    decorated = {each.name: " ".join(map(ast.unparse, each.decorator_list)) for each in functions}
    fields = [each for each in functions if "field_validator" in decorated[each.name] and _mode(each) == "after"]
    init = [each for each in functions if each.name == "__post_init__"]
    models = [each for each in functions if "model_validator" in decorated[each.name] and _mode(each) == "after"]
    yield from (*fields, *init, *models)


def _mode(function: ast.FunctionDef) -> str:
    for call in function.decorator_list:
        for word in call.keywords if isinstance(call, ast.Call) else ():
            if word.arg == "mode":
                return ast.unparse(word.value).strip("'")
    return "after"


def _fields_of(function: ast.FunctionDef) -> list[str]:
    """The fields of a field's validator; none for another function."""
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("field_validator"):
            return [str(each.value) for each in call.args if isinstance(each, ast.Constant)]
    return []
