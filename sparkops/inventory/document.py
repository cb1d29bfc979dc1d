"""YAML text → plain values, and the place of each of them.

A `Document` holds dicts, lists and scalars as the YAML says, and beside them a table from paths (tuples of keys and
indexes) to lines and columns. Sizes, depth and the expansion of aliases are bounded, so that a hostile or broken
file ends in a message and not in a hang. It must not know what an inventory is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from sparkops.core.errors import InventoryError
from sparkops.core.secrets import SecretRef
from sparkops.inventory.faults import Faults, suggest

Where: TypeAlias = "tuple[str | int, ...]"

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 200_000

SECRET_TAGS = ("!env", "!file", "!command")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_MERGE = "tag:yaml.org,2002:merge"
_TRUE = ("yes", "true", "on")


@dataclass(frozen=True, slots=True)
class Document:
    """What one file says. `name` is the file as the user called it; `folder` the place that relative paths start from.

    `raw` keeps the text of the unquoted scalars that YAML read as something else than a string (`no`, `580.10`).
    """

    name: str
    folder: Path
    data: Any
    marks: Mapping[Where, tuple[int, int]] = field(default_factory=dict, repr=False)
    keys: Mapping[Where, tuple[int, int]] = field(default_factory=dict, repr=False)
    raw: Mapping[Where, str] = field(default_factory=dict, repr=False)

    def where(self, path: Where = ()) -> str:
        """`file:line:column` of the value at `path`, or of the nearest value around it that is known."""
        return self._nearest(self.marks, path)

    def where_key(self, path: Where) -> str:
        """`file:line:column` of the key that ends `path`; of the value where it is an item of a list."""
        return self._place(self.keys[path]) if path in self.keys else self.where(path)

    def at(self, path: Where) -> object:
        """The value at `path`. Raises KeyError, IndexError or TypeError when there is none."""
        value = self.data
        for part in path:
            value = value[part]
        return value

    def _nearest(self, table: Mapping[Where, tuple[int, int]], path: Where) -> str:
        for length in range(len(path), -1, -1):
            if path[:length] in table:
                return self._place(table[path[:length]])
        return self.name

    def _place(self, mark: tuple[int, int]) -> str:
        return f"{self.name}:{mark[0] + 1}:{mark[1] + 1}"


def read(path: Path, name: str | None = None, *, faults: Faults | None = None) -> Document:
    """The document in a file. Raises InventoryError with every fault found in it; with `faults`, adds them there and
    raises only when nothing can be read."""
    shown = name or str(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InventoryError.of("not-a-file", where=shown)
        if size > MAX_BYTES:
            raise InventoryError.of("declared-file-too-large", where=f"{shown}:1:1", size=size, limit=MAX_BYTES)
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InventoryError.of("file-not-utf8", where=f"{shown}:{line}:1") from None
    except OSError as error:
        raise InventoryError.of("file-unreadable", where=shown, reason=error.strerror) from error
    return parse(text, name=shown, folder=path.parent, faults=faults)


def parse(text: str, *, name: str, folder: Path, faults: Faults | None = None) -> Document:
    """The document in a text; faults as in `read`."""
    if len(text) > MAX_BYTES:
        raise InventoryError.of("text-too-long", where=f"{name}:1:1", limit=MAX_BYTES)
    found = Faults() if faults is None else faults
    builder = _Builder(name, folder, found)
    data = builder.value(_compose(text, name), (), 0)
    if faults is None:
        found.raise_any()
    return Document(name, folder, data, builder.marks, builder.keys, builder.raw)


class _TooDeep(yaml.MarkedYAMLError):
    pass


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Composer(_Base):  # type: ignore[misc]
    """libyaml's parser up to the node graph, with a bound on depth.

    Dates and base-60 numbers of YAML 1.1 are left out of the implicit types: `2026-01-01` and `22:22` are strings.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def descend_resolver(self, parent: Any, index: object) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = parent.start_mark if parent is not None else None
            raise _TooDeep(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


def _implicit(tag: str, pattern: str, first: str) -> None:
    _Composer.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_implicit("bool", "yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO")
_implicit(
    "float",
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+0123456789.",
)
_implicit("int", "[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)", "-+0123456789")
_Composer.add_implicit_resolver(_MERGE, re.compile("^<<$"), ["<"])
_Composer.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])


def _compose(text: str, name: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Composer(text)
        found: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, name, text) from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        line = text[:position].count("\n") + 1
        raise InventoryError.of(
            "yaml-character-invalid", where=f"{name}:{line}:1", reason=getattr(error, "reason", error)
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    return found


def _syntax_error(error: yaml.MarkedYAMLError, name: str, text: str) -> InventoryError:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = error.problem or "the YAML cannot be read"
    if isinstance(error, _TooDeep):
        return InventoryError.of("yaml-nesting-too-deep", where=where, limit=MAX_DEPTH)
    hint = ""
    if mark and _at(text, mark) == "\t":
        hint = "indent with spaces, never with tabs"
    elif "but found another document" in problem:
        hint = "one file holds one document; remove the line ---"
    elif "mapping values are not allowed" in problem:
        hint = "put the text in quotes when it holds a colon and a space"
    elif error.context:
        hint = f"it happened {error.context}"
    return InventoryError.of("yaml-invalid", where=where, problem=problem, hint=hint)


def _at(text: str, mark: yaml.Mark) -> str:
    """The character at a mark."""
    lines = text.split("\n")
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""


class _Builder:
    """Turns a node graph into values and fills the tables of places."""

    def __init__(self, name: str, folder: Path, faults: Faults) -> None:
        self.name = name
        self.folder = folder
        self.faults = faults
        self.marks: dict[Where, tuple[int, int]] = {}
        self.keys: dict[Where, tuple[int, int]] = {}
        self.raw: dict[Where, str] = {}
        self.count = 0

    def value(self, node: yaml.Node | None, path: Where, depth: int) -> Any:
        if node is None:
            return None
        self.count += 1
        mark = node.start_mark
        if self.count > MAX_VALUES:
            raise InventoryError.of("yaml-too-many-values", where=self._where(node), limit=MAX_VALUES)
        if depth > MAX_DEPTH:
            raise InventoryError.of("yaml-too-deep", where=self._where(node), limit=MAX_DEPTH)
        self.marks[path] = (mark.line, mark.column)
        if node.tag not in _PLAIN_TAGS:
            return self._tagged(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.Node, path: Where, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.append(value_node)
                continue
            key = self._key(key_node)
            here = (*path, key)
            if key in found:
                line = self.keys[here][0] + 1
                self._fault(key_node, "yaml-key-twice", key=key, line=line)
                continue
            self.keys[here] = (key_node.start_mark.line, key_node.start_mark.column)
            found[key] = self.value(value_node, here, depth + 1)
        for source in merged:
            self._merge(source, found, path, depth)
        return found

    def _key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":str"):
            return str(node.value)
        if isinstance(node, yaml.ScalarNode):
            kind = node.tag.rpartition(":")[2]
            self._fault(node, "yaml-key-not-text", value=node.value, article=_ARTICLE.get(kind, kind))
            return str(node.value)
        self._fault(node, "yaml-key-not-scalar")
        return "?"

    def _merge(self, source: yaml.Node, found: dict[str, object], path: Where, depth: int) -> None:
        nodes = source.value if isinstance(source, yaml.SequenceNode) else [source]
        for each in nodes:
            if not isinstance(each, yaml.MappingNode) or depth > MAX_DEPTH:
                self._fault(each, "yaml-merge-invalid")
                continue
            self.count += len(each.value)
            inner = yaml.MappingNode(
                each.tag,
                [
                    (key, value)
                    for key, value in each.value
                    if key.tag == _MERGE or not (isinstance(key, yaml.ScalarNode) and key.value in found)
                ],
                each.start_mark,
                each.end_mark,
            )
            mark = self.marks.get(path)
            found.update(self.value(inner, path, depth + 1))
            if mark is not None:
                self.marks[path] = mark

    def _scalar(self, node: yaml.ScalarNode, path: Where) -> object:
        kind = node.tag.rpartition(":")[2]
        if kind == "str":
            return node.value
        if kind in ("map", "seq"):
            self._fault(node, "yaml-tag-mismatch", value=node.value, kind=kind)
            return None
        self.raw[path] = node.value
        try:
            return _CONSTRUCT[kind](node.value)
        except ValueError as error:
            self._fault(node, "yaml-value-invalid", value=_shorten(node.value), kind=kind, reason=str(error))
            return None

    def _tagged(self, node: yaml.Node) -> object:
        where = self._where(node)
        base = str(self.folder)
        if node.tag in ("!env", "!file"):
            if isinstance(node, yaml.ScalarNode) and node.value:
                return SecretRef(node.tag[1:], node.value, where=where, base=base)  # type: ignore[arg-type]
            takes = "the name of a variable: !env NAME" if node.tag == "!env" else "a path: !file PATH"
            self._fault(node, "secret-tag-invalid", tag=node.tag, takes=takes)
        elif node.tag == "!command":
            words = list(_words(node))
            if words and all(word is not None for word in words):
                return SecretRef("command", tuple(str(word) for word in words), where=where, base=base)
            self._fault(node, "secret-command-tag-invalid")
        elif node.tag == _MERGE:
            return "<<"
        else:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._fault(node, "yaml-tag-unknown", tag=tag, suggestion=suggest(tag, SECRET_TAGS))
        return None

    def _where(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _fault(self, node: yaml.Node, id: str, /, **args: object) -> None:
        self.faults.add(id, where=self._where(node), **args)
        if self.faults.full:
            self.faults.raise_any()


_ARTICLE = {"bool": "a boolean", "int": "a number", "float": "a number", "null": "nothing"}


def _words(node: yaml.Node) -> Iterator[str | None]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield item.value if isinstance(item, yaml.ScalarNode) and item.tag in _PLAIN_TAGS else None


def _bool(text: str) -> bool:
    return text.lower() in _TRUE


def _int(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith(("0b", "0x")):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if digits.startswith("0") and len(digits) > 1 else 10)


def _float(text: str) -> float:
    value = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
    if not math.isfinite(value):
        raise ValueError("only finite numbers can be declared")
    return value


def _null(text: str) -> None:
    return None


_CONSTRUCT: Mapping[str, Any] = {"bool": _bool, "int": _int, "float": _float, "null": _null}


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
