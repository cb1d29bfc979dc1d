"""Expressions in the descriptions of architectures: arithmetic and comparisons over a configuration's keys.

The grammar is a part of Python's: names, whole numbers, words, `+ - * // %`, comparisons, `and or not`,
`x if y else z`, `name[index]`, and the functions below. It must not know what a key means.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from types import CodeType


def _get(mapping: object, key: str) -> object:
    """The entry of a mapping; None where it is none or lacks it."""
    return mapping.get(key) if isinstance(mapping, Mapping) else None


FUNCTIONS: Mapping[str, object] = {
    "get": _get,
    "int": int,
    "len": len,
    "max": max,
    "min": min,
    "sum": sum,
    "range": range,
    "split": str.split,
    "str": str,
}
_NODES = (
    ast.Expression,
    ast.BoolOp, ast.And, ast.Or,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod,
    ast.UnaryOp, ast.Not, ast.USub,
    ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot,
    ast.IfExp, ast.Call, ast.Subscript, ast.Slice, ast.Tuple, ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


@cache
def compiled(text: str) -> CodeType:
    """The expression, ready to evaluate. Raises ValueError for what the grammar does not have."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{text!r}: {error.msg}") from None
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if not isinstance(node, _NODES) or (called and getattr(called, "id", "") not in FUNCTIONS):
            raise ValueError(f"{text!r}: {ast.unparse(node)} is no part of an expression")
    return compile(tree, text, "eval")


@cache
def names(text: str) -> frozenset[str]:
    """The names that an expression reads, its functions left out."""
    found = {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)}
    return frozenset(found - set(FUNCTIONS))


@cache
def needed(text: str) -> frozenset[str]:
    """The names without which an expression has no value: neither asked about nor replaced by what follows `or`."""
    tree = ast.parse(text, mode="eval")
    asked: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            asked.update(inner for value in node.values[:-1] for inner in ast.walk(value))
        elif isinstance(node, ast.IfExp):
            asked.update(ast.walk(node.test))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "get":
            asked.update(ast.walk(node.args[0]))
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in asked}
    return frozenset(found - set(FUNCTIONS))


@cache
def entries(text: str) -> frozenset[tuple[str, str]]:
    """What an expression reads inside mappings: the name of each, and the entry (`a['b']`)."""
    return frozenset(
        (node.value.id, node.slice.value)
        for node in ast.walk(ast.parse(text, mode="eval"))
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    )


def value(text: str | int, scope: Mapping[str, object]) -> object:
    """The value of an expression, its names looked up in `scope` (KeyError where one is not there)."""
    if not isinstance(text, str):
        return text
    return eval(compiled(text), {"__builtins__": {}, **FUNCTIONS}, scope)
