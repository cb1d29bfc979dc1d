"""The command line of `vllm serve` in a wheel: its flags, how each is read, and what their values must be.

It follows `get_kwargs` of vllm/engine/arg_utils.py, which makes flags of the fields of configuration classes, and the
calls of `add_argument`. It must not know what a flag does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tools.wheel_configurations import Reader
from tools.wheel_source import UNKNOWN, Module, Wheel
from tools.wheel_types import ANY, NONE, split, union

ARGUMENTS = "vllm.engine.arg_utils"
SERVE = "vllm/entrypoints/"
"""The folder in which a module holds the flags of the server; it has moved between versions."""

PLAIN = (bool, int, float, str)
READERS = {
    "int": "integer", "float": "decimal", "str": "text", "json.loads": "json", "optional_type(json.loads)": "json",
    "parse_type(json.loads)": "json", "optional_type(int)": "integer", "optional_type(str)": "text",
    "human_readable_int": "size", "union_dict_and_str": "json_or_text",
}  # fmt: skip
"""What an explicit `type=` makes of a value."""


@dataclass
class Flag:
    """One flag without its dashes."""

    name: str
    kind: str
    short: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    default: Any = UNKNOWN
    value: str = ANY
    deprecated: bool = False
    alias: str = ""
    computed: bool = False
    """Whether its choices are computed, so that reading does not tell them."""


@dataclass
class _Scope:
    """What a function has said so far of the arguments of flags: `x = get_kwargs(C)`, `y = x["f"]`, `y["type"] = …`."""

    module: Module
    classes: dict[str, str] = field(default_factory=dict)
    fields: dict[str, tuple[str, str]] = field(default_factory=dict)
    changed: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def see(self, node: ast.AST) -> None:
        """Takes a statement or an expression into account."""
        match node:
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id="get_kwargs"), args=[argument])
            ):
                self.classes[name] = ast.unparse(argument)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript() as value):
                if of := self.field_of(value):
                    self.fields[name] = of
            case ast.Assign(targets=[ast.Subscript(value=inner, slice=ast.Constant(value=key))], value=value):
                self._change(inner, str(key), ast.unparse(value))
            case ast.AugAssign(target=ast.Subscript(value=inner, slice=ast.Constant(value="choices"))):
                self._change(inner, "computed", "True")
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Subscript(value=inner, slice=ast.Constant(value="choices")), attr="remove"
                ),
                args=[removed],
            ):
                self._change(inner, "removed", str(self.module.value(removed)))

    def _change(self, node: ast.expr, key: str, text: str) -> None:
        if of := self.field_of(node):
            self.changed.setdefault(of, {})[key] = text

    def field_of(self, node: ast.expr | None) -> tuple[str, str] | None:
        """The class and field whose arguments an expression is."""
        match node:
            case ast.Dict(keys=[None, *_], values=[first, *_]):
                return self.field_of(first)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)) if name in self.classes:
                return self.classes[name], str(key)
            case ast.Subscript(value=ast.Call(args=[argument]), slice=ast.Constant(value=key)):
                return ast.unparse(argument), str(key)
            case ast.Name(id=name):
                return self.fields.get(name)
        return None


@dataclass
class CommandLine:
    """Reads the flags of a wheel, and the classes that their values are."""

    wheel: Wheel
    reader: Reader = field(default_factory=Reader)

    def flags(self) -> list[Flag]:
        """All flags of `vllm serve`."""
        engine = self._module(ARGUMENTS)
        found = [Flag("help", "switch", ("h",))]
        for name in ("EngineArgs", "AsyncEngineArgs"):
            place = engine.find(name)
            assert place is not None and isinstance(place[1], ast.ClassDef)
            found += self._calls(engine, _method(place[1], "add_cli_args"), place[1])
        server = self._server()
        found += self._calls(server, server.names["make_arg_parser"], None)
        found += self._frontend(server)
        aliased = [replace(each, name=each.alias, short=()) for each in found if each.alias]
        return list({each.name: each for each in [*found, *aliased]}.values())

    def _module(self, name: str) -> Module:
        module = self.wheel.module(name)
        if module is None:
            raise ValueError(f"{self.wheel.path.name} has no {name}: is it a wheel of vLLM?")
        return module

    def _server(self) -> Module:
        for path in sorted(self.wheel.files):
            if (
                path.startswith(SERVE)
                and path.endswith("cli_args.py")
                and "class FrontendArgs" in self.wheel.text(path)
            ):
                return self.wheel.file(path)
        raise ValueError(f"{self.wheel.path.name} has no flags of a server: is it a wheel of vLLM?")

    def _frontend(self, module: Module) -> Iterator[Flag]:
        """The flags of the server: each field of FrontendArgs, but what it customises."""
        place = module.find("FrontendArgs")
        assert place is not None and isinstance(place[1], ast.ClassDef)
        nodes = [place[1], *(found[1] for base in place[1].bases if (found := module.find(ast.unparse(base))))]
        changed: dict[str, dict[str, str]] = {}
        for node in nodes:
            for statement in ast.walk(node):
                _customised(statement, changed)
        for node in reversed(nodes):
            for statement in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    name = statement.target.id
                    flag = self._of_field(module, name, statement, name.replace("_", "-"))
                    flag.value = ANY  # the server reads its flags as the parser leaves them
                    yield _custom(flag, changed.get(name, {}))

    def _calls(self, module: Module, function: ast.stmt, owner: ast.ClassDef | None) -> Iterator[Flag]:
        """The flags of every `add_argument` in a function."""
        scope = _Scope(module)
        for node in _in_order(function):
            if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith(".add_argument"):
                scope.see(node)
            elif any(isinstance(each, ast.Constant) and str(each.value).startswith("-") for each in node.args):
                yield self._call(module, node, scope, owner)

    def _call(self, module: Module, node: ast.Call, scope: _Scope, owner: ast.ClassDef | None) -> Flag:
        written = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
        long = [each[2:] for each in written if each.startswith("--")]
        source = next((word.value for word in node.keywords if word.arg is None), None)
        of = scope.field_of(source)
        words = {str(word.arg): ast.unparse(word.value) for word in node.keywords if word.arg is not None}
        if of is not None:
            place = module.find(of[0])
            assert place is not None and isinstance(place[1], ast.ClassDef)
            where, holder, statement = _field(place[0], place[1], of[1])
            flag = self._of_field(where, of[1], statement, long[0], holder)
            flag = _custom(flag, {**scope.changed.get(of, {}), **_overrides(source), **words})
        else:
            flag = self._explicit(module, long[0], words, owner)
        flag.short = tuple(each[1:] for each in written if not each.startswith("--"))
        flag.alias = long[1] if len(long) > 1 else ""
        said = self._help(module, {**words, **_overrides(source)})
        flag.deprecated = words.get("deprecated") == "True" or "deprecated" in said.lower()
        return flag

    def _help(self, module: Module, words: dict[str, str]) -> str:
        value = module.value(ast.parse(words["help"], mode="eval").body) if "help" in words else ""
        return str(value) if value is not UNKNOWN else ""

    def _explicit(self, module: Module, name: str, words: dict[str, str], owner: ast.ClassDef | None) -> Flag:
        """A flag that no field of a configuration stands for."""
        default = module.value(ast.parse(words["default"], mode="eval").body) if "default" in words else None
        if owner is not None and words.get("default", "").startswith(f"{owner.name}."):
            default = _class_default(module, owner, words["default"].rpartition(".")[2])
        action = words.get("action", "")
        choices = module.value(ast.parse(words["choices"], mode="eval").body) if "choices" in words else ()
        if "BooleanOptionalAction" in action:
            return Flag(name, "pair", default=default)
        if action.strip("'\"") == "store_true":
            return Flag(name, "switch", default=False)
        kind = READERS.get(words.get("type", "str"), "text")
        if words.get("nargs", "").strip("'\"") == "?":
            kind = "loose"
        elif words.get("nargs", "").strip("'\"") in ("+", "*"):
            kind = "integers" if kind == "integer" else "several"
        known = tuple(map(str, choices)) if choices is not UNKNOWN else ()
        return Flag(
            name, kind, choices=known, default=default, value=self._of_same_name(name), computed=choices is UNKNOWN
        )

    def _of_same_name(self, name: str) -> str:
        """The type of the field that a flag of its own ends up in."""
        configuration = self._module("vllm.config")
        for holder in ("VllmConfig", "ParallelConfig"):
            place = configuration.find(holder)
            if place is not None and isinstance(place[1], ast.ClassDef):
                text = self.reader.fields(place[0], place[1]).get(name.replace("-", "_"), "")
                if text:
                    return text.partition(" = ")[0]
        return ANY

    def _of_field(
        self, module: Module, name: str, statement: ast.AnnAssign, flag: str, owner: ast.ClassDef | None = None
    ) -> Flag:
        """A flag as `get_kwargs` makes it of a field."""
        kind = self.reader.types.text(module, statement.annotation)
        default = module.default(statement.value) if statement.value is not None else UNKNOWN
        value = self.reader.field(module, owner, name, statement).partition(" = ")[0] if owner else kind
        made = Flag(flag, "", default=default, value=value)
        hints = _Hints(self, module, statement.annotation)
        made.kind, made.choices = hints.kind(name)
        if any(each in self.reader.types.classes for each in split(value)):  # the parser reads the class only
            made.value = union(each for each in split(value) if not each.startswith("dict["))
        return made


@dataclass
class _Hints:
    """What `get_kwargs` looks at: the members of a field's annotation."""

    line: CommandLine
    module: Module
    annotation: ast.expr

    def kind(self, name: str) -> tuple[str, tuple[str, ...]]:
        """How a flag is read, and its choices."""
        members = self._members(self.module, self.annotation)
        if name == "optimization_level":
            return "integer", ()  # an enumeration of numbers, which the parser reads itself
        none = NONE in members
        plain = members - {NONE}
        literals = [each for each in plain if each.startswith("Literal") or each in self.line.reader.types.words]
        if any(each in self.line.reader.types.classes for each in plain):
            return "json", ()
        if members == {"bool", "str", NONE}:
            return "loose", ()
        if "bool" in plain:
            return "pair", ()
        if literals:
            return "text", () if "str" in plain else self._choices(literals, none)
        if lists := [each for each in plain if each.startswith("list[")]:
            inner = lists[0][5:-1]
            choices = self._choices([inner], none) if inner in self.line.reader.types.words else ()
            return ("integers" if inner == "int" else "several"), choices
        return _simple(name, plain), ()

    def _choices(self, literals: list[str], none: bool) -> tuple[str, ...]:
        words: list[str] = []
        for each in literals:
            named = self.line.reader.types.words.get(each)
            words += map(str, named if named is not None else ast.literal_eval(each.removeprefix("Literal")))
        return (*sorted(words, key=_order), *(["None"] if none else []))

    def _members(self, module: Module, annotation: ast.expr) -> set[str]:
        """The members of the annotation in the notation; what is no type of the notation is `str` to the parser."""
        text = ast.unparse(annotation)
        found: set[str] = set()
        node = ast.parse(text.strip("'\""), mode="eval").body
        for each in _flat(module, node):
            inner = self.line.reader.types.text(*each)
            found |= {_other(*each)} if inner == ANY else set(split(inner))
        return found


def _other(module: Module, node: ast.expr) -> str:
    """What the parser takes a type for that the notation does not have: a mapping, or a word."""
    found = module.find(ast.unparse(node))
    bases = " ".join(map(ast.unparse, found[1].bases)) if found and isinstance(found[1], ast.ClassDef) else ""
    return "dict[" if "dict" in bases or "Dict[" in bases else "other"


def _simple(name: str, plain: set[str]) -> str:
    if "int" in plain or any(each.startswith("int(") for each in plain):
        sizes = ("max_num_batched_tokens", "max_num_scheduled_tokens", "kv_cache_memory_bytes",
                 "safetensors_prefetch_block_size", "max_num_queued_tokens")  # fmt: skip
        return "length" if name == "max_model_len" else "size" if name in sizes else "integer"
    if any(each.startswith("float") for each in plain):
        return "decimal"
    if any(each.startswith("dict[") for each in plain):
        return "json_or_text" if plain & {"str", "other"} else "json"
    return "text"


def _order(word: str) -> tuple[int, str]:
    return (int(word), "") if word.isdigit() else (0, word)


def _flat(module: Module, node: ast.expr) -> Iterator[tuple[Module, ast.expr]]:
    """The members of a union, aliases of unions opened."""
    if isinstance(node, ast.BinOp):
        yield from _flat(module, node.left)
        yield from _flat(module, node.right)
        return
    name = ast.unparse(node.value).rpartition(".")[2] if isinstance(node, ast.Subscript) else ""
    if isinstance(node, ast.Subscript) and name in ("Optional", "Union", "Annotated", "SkipValidation"):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in parts[:1] if name == "Annotated" else parts:
            yield from _flat(module, part)
        if name == "Optional":
            yield module, ast.Constant(None)
        return
    found = module.find(node.id) if isinstance(node, ast.Name) else None
    value = found[1].value if found and isinstance(found[1], (ast.Assign, ast.AnnAssign)) else None
    if found and isinstance(value, (ast.BinOp, ast.Subscript)) and found[0].literal(value) is None:
        yield from _flat(found[0], value)
    else:
        yield module, node


def _in_order(function: ast.stmt) -> list[ast.stmt | ast.expr]:
    """What stands in a function, as it is written."""
    nodes = [each for each in ast.walk(function) if isinstance(each, (ast.stmt, ast.expr))]
    return sorted(nodes, key=lambda each: (each.lineno, each.col_offset))


def _overrides(node: ast.expr | None) -> dict[str, str]:
    """What `{**x["f"], "default": None}` changes."""
    if not isinstance(node, ast.Dict):
        return {}
    return {
        str(key.value): ast.unparse(value)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant)
    }


def _customised(node: ast.AST, changed: dict[str, dict[str, str]]) -> None:
    """`frontend_kwargs["x"]["type"] = …` and `del frontend_kwargs["x"]["nargs"]`."""
    targets = node.targets if isinstance(node, (ast.Assign, ast.Delete)) else []
    for target in targets:
        if (
            isinstance(target, ast.Subscript)
            and isinstance(target.value, ast.Subscript)
            and isinstance(target.slice, ast.Constant)
            and isinstance(target.value.slice, ast.Constant)
        ):
            value = ast.unparse(node.value) if isinstance(node, ast.Assign) else ""
            changed.setdefault(str(target.value.slice.value), {})[str(target.slice.value)] = value


def _custom(flag: Flag, changed: dict[str, str]) -> Flag:
    """A flag with what is said of it beside its field."""
    several = flag.kind in ("several", "integers") and changed.get("nargs") != ""
    if changed.get("type") in READERS and not several:
        flag.kind = READERS[changed["type"]]
    elif flag.kind == "several" and not several:
        flag.kind = "text"
    if changed.get("nargs", "").strip("'") == "?":
        flag.kind = "loose"
    flag.computed = "computed" in changed
    if "removed" in changed:
        flag.choices = tuple(each for each in flag.choices if each != changed["removed"])
    if "default" in changed:
        text = changed["default"]
        flag.default = ast.literal_eval(text) if text[:1] in "'\"-0123456789NTF" else UNKNOWN
    if "BooleanOptionalAction" in changed.get("action", ""):
        flag.kind = "pair"
    return flag


def _field(module: Module, node: ast.ClassDef, name: str) -> tuple[Module, ast.ClassDef, ast.AnnAssign]:
    """A field, where it is defined: in the class or in one that it extends."""
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name:
            return module, node, statement
    for base in node.bases:
        found = module.find(ast.unparse(base))
        if found is not None and isinstance(found[1], ast.ClassDef):
            return _field(found[0], found[1], name)
    raise ValueError(f"{node.name} has no field {name}")


def _method(node: ast.ClassDef, name: str) -> ast.stmt:
    return next(each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == name)


def _class_default(module: Module, node: ast.ClassDef, name: str) -> Any:
    where, _, statement = _field(module, node, name)
    return where.default(statement.value) if statement.value is not None else UNKNOWN
