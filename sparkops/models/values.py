"""The types of an engine's values, in the notation of its page, and what a value has against them.

Values are read as the engine's validators read them (pydantic's lax mode): `"2"`, `2.0` and `true` are whole numbers,
`"yes"` is a switch. It must not know a rule.

Source: pydantic's conversion table (https://docs.pydantic.dev/latest/concepts/conversion_table/).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from sparkops.models.architecture import expressions
from sparkops.models.engine import Engine

SWITCH_WORDS = ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes")
WHOLE = re.compile(r"\s*[+-]?\d+(?:_\d+)*(?:\.0*)?\s*")
BOUNDS: Mapping[str, tuple[str, Any]] = {
    "ge": ("greater than or equal to", lambda value, bound: value >= bound),
    "gt": ("greater than", lambda value, bound: value > bound),
    "le": ("less than or equal to", lambda value, bound: value <= bound),
    "lt": ("less than", lambda value, bound: value < bound),
    "multiple_of": ("a multiple of", lambda value, bound: value % bound == 0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a value: where in it, the engine's words for it, and the words that would be right.

    `kind` is `key` for a name that no configuration has, `combination` for values that exclude each other.
    """

    path: tuple[str, ...]
    message: str
    kind: str = "value"
    known: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The path as one word."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a configuration: its type, whether it must be given, and its default where that is a plain value."""

    type: ast.expr
    required: bool
    default: tuple[object, ...]


def faults(text: str, value: object, engine: Engine) -> list[Fault]:
    """What is wrong with a value of a type. Nothing where the type is not known."""
    return list(_faults(_type(text), value, engine, ()))


@cache
def _type(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@cache
def _field(text: str) -> Field:
    statement = ast.parse(f"field: {text}").body[0]
    assert isinstance(statement, ast.AnnAssign)
    if statement.value is None:
        return Field(statement.annotation, True, ())
    default = ast.literal_eval(statement.value)
    return Field(statement.annotation, False, () if default is Ellipsis else (default,))


def _faults(node: ast.expr, value: object, engine: Engine, path: tuple[str, ...]) -> Iterator[Fault]:
    match node:
        case ast.BinOp():
            yield from _union(list(_members(node)), value, engine, path)
        case ast.Constant(value=None):
            if value is not None:
                yield Fault(path, f"Input should be None, not {value!r}")
        case ast.Name(id=name):
            yield from _named(name, value, engine, path)
        case ast.Call(func=ast.Name(id="upper" | "lower" as case), args=[argument]):
            yield from _any_case(case, argument, value, engine, path)
        case ast.Call(func=ast.Name(id="int" | "float" as name), keywords=keywords):
            yield from _number(name, {str(word.arg): ast.literal_eval(word.value) for word in keywords}, value, path)
        case ast.Call(func=measured, keywords=keywords):
            yield from _faults(measured, value, engine, path)
            yield from _length({str(word.arg): ast.literal_eval(word.value) for word in keywords}, value, path)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=words):
            listed = ast.literal_eval(words)
            yield from _word(listed if isinstance(listed, tuple) else (listed,), value, path)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            yield from _list(inner, value, engine, path)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, inner])):
            yield from _mapping(inner, value, engine, path)


def _members(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _members(node.left)
        yield from _members(node.right)
    else:
        yield node


def _union(members: list[ast.expr], value: object, engine: Engine, path: tuple[str, ...]) -> Iterable[Fault]:
    """Nothing where one member takes the value; else what the others say, once each, without that it is not None."""
    found: list[Fault] = []
    for member in members:
        own = list(_faults(member, value, engine, path))
        if not own:
            return ()
        found += own if not isinstance(member, ast.Constant) else []
    inner = [each for each in found if len(each.path) > len(path)]
    return inner or found[:1]


def _named(name: str, value: object, engine: Engine, path: tuple[str, ...]) -> Iterable[Fault]:
    if name in ("int", "float"):
        return _number(name, {}, value, path)
    if name == "bool":
        return () if _is_switch(value) else (Fault(path, f"Input should be a valid boolean, not {value!r}"),)
    if name == "str":
        return () if isinstance(value, str) else (Fault(path, f"Input should be a valid string, not {value!r}"),)
    if name in engine.words:
        return _word(engine.words[name], value, path)
    if name in engine.configurations:
        return _configuration(name, value, engine, path)
    return ()


def _read(node: ast.expr, value: object) -> object:
    """A value as the engine holds it: `"2"` of a whole number is 2, `"yes"` of a switch true."""
    names = {ast.unparse(each.func if isinstance(each, ast.Call) else each) for each in _members(node)}
    if "str" in names or not isinstance(value, (str, int, float)):
        return value
    if "bool" in names and _is_switch(value):
        return value in (1, 1.0) or str(value).strip().lower() in SWITCH_WORDS[6:]
    read = _whole(value) if "int" in names else _decimal(value) if "float" in names else None
    return value if read is None else read


def _is_switch(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in SWITCH_WORDS
    return isinstance(value, (int, float)) and value in (0, 1)


def _number(name: str, bounds: Mapping[str, object], value: object, path: tuple[str, ...]) -> Iterator[Fault]:
    number = _whole(value) if name == "int" else _decimal(value)
    if number is None:
        kind = "integer" if name == "int" else "number"
        yield Fault(path, f"Input should be a valid {kind}, not {value!r}")
        return
    for bound, limit in bounds.items():
        words, holds = BOUNDS[bound]
        if not holds(number, limit):
            yield Fault(path, f"Input should be {words} {limit:g}, not {value!r}")


def _length(bounds: Mapping[str, int], value: object, path: tuple[str, ...]) -> Iterator[Fault]:
    if isinstance(value, (str, list, tuple, Mapping)):
        if len(value) < bounds.get("min_length", 0):
            yield Fault(path, f"Input should have at least {bounds['min_length']} items, not {len(value)}")
        if len(value) > bounds.get("max_length", len(value)):
            yield Fault(path, f"Input should have at most {bounds['max_length']} items, not {len(value)}")


def _whole(value: object) -> int | None:
    if isinstance(value, str):
        return int(value.partition(".")[0]) if WHOLE.fullmatch(value) else None
    return int(value) if isinstance(value, (int, float)) and value % 1 == 0 else None


def _decimal(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except ValueError:
        return None


def _word(words: tuple[object, ...], value: object, path: tuple[str, ...]) -> Iterable[Fault]:
    if any(value == word and type(value) is type(word) for word in words):
        return
    listed = ", ".join(repr(word) for word in words)
    yield Fault(path, f"Input should be one of {listed}, not {value!r}", known=tuple(map(str, words)))


def _any_case(case: str, argument: ast.expr, value: object, engine: Engine, path: tuple[str, ...]) -> Iterable[Fault]:
    """Words that the engine changes to one case before it looks them up."""
    if case == "lower":
        changed = value.lower().replace("-", "_") if isinstance(value, str) else value
        return _faults(argument, changed, engine, path)
    constant = isinstance(argument, ast.Constant)
    names = (str(ast.literal_eval(argument)).upper(),) if constant else engine.words.get(ast.unparse(argument))
    if names is None or (isinstance(value, str) and value.upper() in names):
        return ()
    return _word(names, value, path)


def _list(inner: ast.expr, value: object, engine: Engine, path: tuple[str, ...]) -> Iterator[Fault]:
    if not isinstance(value, (list, tuple)):
        yield Fault(path, f"Input should be a valid list, not {value!r}")
        return
    for index, each in enumerate(value):
        yield from _faults(inner, each, engine, (*path, str(index)))


def _mapping(inner: ast.expr, value: object, engine: Engine, path: tuple[str, ...]) -> Iterator[Fault]:
    if not isinstance(value, Mapping):
        yield Fault(path, f"Input should be a valid dictionary, not {value!r}")
        return
    for key, each in value.items():
        yield from _faults(inner, each, engine, (*path, str(key)))


def _configuration(name: str, value: object, engine: Engine, path: tuple[str, ...]) -> Iterable[Fault]:
    if not isinstance(value, Mapping):
        return [Fault(path, f"Input should be a dictionary or an instance of {name}, not {value!r}")]
    fields = engine.configurations[name]
    found: list[Fault] = []
    for key, each in value.items():
        if key in fields:
            found += _faults(_field(fields[key]).type, each, engine, (*path, key))
        elif "*" not in fields:
            found.append(Fault((*path, key), "Unexpected keyword argument", "key", tuple(fields)))
    missing = [key for key, text in fields.items() if key not in value and key != "*" and _field(text).required]
    found += [Fault((*path, key), "Field required") for key in missing]
    return found or _combinations(name, value, engine, path)


def _combinations(name: str, value: Mapping[str, object], engine: Engine, path: tuple[str, ...]) -> list[Fault]:
    """The conditions of a configuration that hold; one over a field whose default is not known holds for nobody."""
    fields = engine.configurations[name]
    scope = {key: default for key, text in fields.items() for default in _field(text).default}
    scope |= {key: _read(_field(fields[key]).type, each) for key, each in value.items() if key in fields}
    found = []
    for condition, message in engine.refusals.get(name, {}).items():
        try:
            holds = expressions.value(condition, scope)
        except (KeyError, NameError, TypeError):
            continue
        if holds:
            found.append(Fault(path, filled(message, scope), "combination"))
    return found


def filled(message: str, scope: Mapping[str, object]) -> str:
    """The engine's words with the values that they name."""
    return re.sub(r"{(\w+)}", lambda match: str(scope.get(match[1], match[0])), message)
