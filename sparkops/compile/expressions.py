"""Expressions of role files and templates: what they see, what they may do, and where their faults are reported.

A scalar that is exactly one `{{ expr }}` yields the object of that expression; any other text with braces renders to a
string; all else is literal. Undefined names are errors. Values that expressions see are never themselves expressions.
This module must not know what a role or a resource is.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from sparkops.compile.launcher_file import launcher_file
from sparkops.compile.secret_placeholders import SecretPlaceholders
from sparkops.core import fact_text
from sparkops.core.errors import InventoryError
from sparkops.core.nested import PLAIN, mapped
from sparkops.core.secrets import Content
from sparkops.core.states import FromFact
from sparkops.inventory.faults import nearest
from sparkops.inventory.merge import Variables
from sparkops.models import engine_errors, service_spec
from sparkops.models.argv import canonical, serve_argv
from sparkops.models.fabric import plan as fabric_plan
from sparkops.resources.fabric_path import FabricPath

Context: TypeAlias = Variables
Value: TypeAlias = Callable[[Context], object]

FAULTS = (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
BRACES = ("{{", "{%", "{#")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LAST = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
NO_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_LAST}]")
"""Surrogates and the code points that Unicode gives to no character."""


class _Undefined(jinja2.StrictUndefined):
    """An undefined name that tells the nearest one that is defined."""

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        name, around = self._undefined_name, self._undefined_obj
        if around is missing:
            return f"{name} is not defined"
        if not isinstance(around, Mapping):
            return f"{'nothing' if around is None else type(around).__name__} has no {name}"
        close = nearest(str(name), map(str, around))
        return f"there is no {name} in it" + (f"; did you mean {close}?" if close else "")


class _Environment(ImmutableSandboxedEnvironment):
    """Keys of mappings come before Python's methods: `serve.copy` is a flag, not `dict.copy`."""

    def getattr(self, obj: object, attribute: str) -> object:
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class _Fact(FromFact):
    """A fact inside an expression: it can be handed on as a whole and nothing else, since it is not known yet."""

    __slots__ = ()

    def __str__(self) -> str:
        raise InventoryError.of("fact-inside-text", path=self.path)

    def __bool__(self) -> bool:
        raise InventoryError.of("fact-as-condition", path=self.path)


class Expressions:
    """Compiles values of a role file, and renders templates that are searched in `folders`, first come first served."""

    def __init__(self, placeholders: SecretPlaceholders, folders: Sequence[Path] = ()) -> None:
        self.placeholders = placeholders
        self._env = _environment(placeholders, folders)

    def value(self, source: object, where: str) -> Value:
        """A function from a context to the value that `source` stands for there; secrets in it are still sealed.

        Raises InventoryError at `where` for a syntax fault; the function raises it for the others.
        """

        def leaf(each: object) -> object:
            templated = isinstance(each, str) and any(brace in each for brace in BRACES)
            return self._text(str(each), where) if templated else self.placeholders.seal(each)

        compiled = mapped(source, leaf)
        return lambda context: mapped(compiled, lambda each: each(context) if callable(each) else each)

    def condition(self, source: object, where: str) -> Value:
        """The value of a `when` or `for_each`: an expression with or without braces; it sees variables, never facts."""
        if isinstance(source, str) and not any(brace in source for brace in BRACES):
            found = self._expression(source, where)
        else:
            found = self.value(source, where)
        return lambda context: found({**context, "fact": _no_fact})

    def template(self, name: str, context: Context, where: str) -> Content:
        """The rendered text of a template file, as content that knows whether a secret is in it."""
        with located_errors(where, self._env):
            text = self._env.get_template(name).render({**context, "fact": fact})
            return Content(self.placeholders.open(text))

    def _text(self, source: str, where: str) -> Value:
        with located_errors(where):
            inner = _only_expression(self._env, source)
            template = self._env.from_string(source) if inner is None else None
        if template is None:
            return self._expression(str(inner), where)
        return _located(where, template.render)

    def _expression(self, source: str, where: str) -> Value:
        with located_errors(where):
            compiled = self._env.compile_expression(source, undefined_to_none=False)
        return _located(where, lambda context: _plain(compiled(context)))


def _located(where: str, value: Value) -> Value:
    def located(context: Context) -> object:
        with located_errors(where):
            return value({"fact": fact, **context})

    return located


@contextlib.contextmanager
def located_errors(where: str, env: jinja2.Environment | None = None) -> Generator[None, None, None]:
    """Turns a fault inside into an InventoryError at a place; in a template file at the template's own line."""
    try:
        yield
    except InventoryError as error:
        if error.where:
            raise
        raise error.at(_place(error, where, env)) from error
    except jinja2.TemplateNotFound as error:
        raise InventoryError.of("template-not-found", where=where, name=error.name) from error
    except FAULTS as error:
        raise _explained(error, _place(error, where, env)) from error


def _place(error: BaseException, where: str, env: jinja2.Environment | None) -> str:
    """The last line of a template file that the error passed through, else the place in the role file."""
    if env is None:
        return where
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{error.filename or error.name or where}:{error.lineno}"
    found, trace = where, error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if trace.tb_frame.f_globals.get("__jinja_template__") is not None or name.endswith(".j2"):
            found = f"{name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def fact(path: str) -> FromFact:
    """The global `fact("gpu.driver")`: a value that diff fills in out of the node's facts."""
    return _Fact(path)


def quote_systemd(value: object, *, command: bool = False) -> str:
    """One word of a unit file (systemd.syntax(7), systemd.service(5)): `%` doubled, quotes where they are needed.

    In a `command` line `$` is doubled too. Raises ValueError for characters that a unit file can't carry.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        raise ValueError(  # noqa: TRY004
            f"{'nothing' if value is None else type(value).__name__} can't stand in a unit file"
        )
    text = str(value)
    if CONTROL.search(text):
        raise ValueError("a unit file can't carry a line break or control character in a value")
    if NO_CHARACTER.search(text):
        raise ValueError("a unit file can't carry a code point that is no character; systemd drops the whole line")
    text = text.replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    if text and not set(text) & set(" \t\"'\\;#"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}"'


def _systemd(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(quote_systemd(each, command=True) for each in value)
    return quote_systemd(value)


def _sh(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return shlex.join(str(each) for each in value)
    return shlex.quote(str(value))


@jinja2.pass_context
def _render(context: jinja2.runtime.Context, name: str) -> str:
    """The global `render("x.j2")`: a template's text as a value, secrets in it still sealed."""
    return context.environment.get_template(name).render(context.get_all())


def _fabric_links(node: Variables, nodes: Mapping[str, Mapping[str, object]]) -> list[dict[str, object]]:
    """The global `fabric_links(node, nodes)`: the links of a node that its topology and subnet give."""
    found = fabric_plan.links_of(node["name"], nodes)
    return [{"slot": each.slot, "port": each.port, "twin": each.twin, "address": each.address} for each in found]


def _fabric_paths(node: Variables, nodes: Mapping[str, Mapping[str, object]]) -> list[dict[str, object]]:
    """The global `fabric_paths(node, nodes)`: the node's ends of the cables that `fabric.measure` is declared for."""
    measured = fabric_plan.measured_cables(nodes)
    own = [(each, True) for each in measured] + [(each.turned, False) for each in measured]
    return [
        {"peer": each.receiver, "lines": [asdict(line) for line in each.lines], "measures": measures}
        for each, measures in own
        if each.sender == node["name"]
    ]


def _measurements(names: Sequence[str], nodes: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The global `measurements(names, nodes)`: the ids of those of the cables between the nodes of these names."""
    measured = fabric_plan.measured_cables(nodes) if len(names) > 1 else ()
    between = [each for each in measured if {each.sender, each.receiver} <= {*names}]
    return [f"{FabricPath.kind} {each.receiver} @{each.sender}" for each in between]


def _environment(placeholders: SecretPlaceholders, folders: Sequence[Path]) -> _Environment:
    env = _Environment(
        undefined=_Undefined,
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )

    def hashed(text_of: Callable[[Any], str]) -> Callable[[object], str]:
        def digest(value: object) -> str:
            if placeholders.holds(value):
                raise InventoryError.of("digest-of-secret")
            return fact_text.digest(text_of(value))

        return digest

    def argv(command: Sequence[str], model: str, serve: Mapping[str, object]) -> list[str]:
        sealed = {
            key: placeholders.derive(value, canonical) if isinstance(value, Mapping) else value
            for key, value in serve.items()
        }
        return serve_argv(command, model, sealed)

    env.filters["systemd"] = lambda value: placeholders.derive(_plain(value), _systemd)
    env.filters["sh"] = lambda value: placeholders.derive(_plain(value), _sh)
    env.filters["json"] = lambda value: placeholders.derive(_plain(value), canonical)
    env.filters["digest"] = hashed(lambda value: canonical(_plain(value)))
    env.filters["sha256"] = hashed(str)
    env.globals["argv"] = argv
    env.globals["render"] = _render
    env.globals["launcher"] = launcher_file
    env.globals["permanent_errors"] = engine_errors.permanent
    env.globals.update(service_spec.functions(placeholders.holds, placeholders.seal))
    env.globals["fabric_links"] = _fabric_links
    env.globals["fabric_paths"] = _fabric_paths
    env.globals["measurements"] = _measurements
    return env


def _only_expression(env: jinja2.Environment, source: str) -> str | None:
    """The inside of a text that is exactly one `{{ expr }}`."""
    tokens = list(env.lex(source))
    kinds = [kind for _, kind, _ in tokens]
    if kinds[:1] != ["variable_begin"] or kinds[-1:] != ["variable_end"] or kinds.count("variable_begin") != 1:
        return None
    return "".join(text for _, _, text in tokens[1:-1])


def _plain(value: object) -> object:
    """The result of an expression as a value of ours: lazy sequences are lists, undefined and callable ones errors."""
    return mapped(value, _plain_leaf)


def _plain_leaf(value: object) -> object:
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError(value._undefined_message)
    if isinstance(value, _Fact):
        return FromFact(value.path)
    if isinstance(value, (*PLAIN, FromFact)):
        return value
    if isinstance(value, (range, Iterator)):
        return [_plain(each) for each in value]
    raise TypeError(f"the expression yields a {type(value).__name__}, which is no value")


def _no_fact(path: str) -> FromFact:
    raise InventoryError.of("fact-in-condition-known-early", path=path)


def _explained(error: BaseException, where: str) -> InventoryError:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return InventoryError.of("expression-syntax-invalid", where=where, reason=error.message)
    if isinstance(error, jinja2.UndefinedError):
        return InventoryError.of("expression-name-undefined", where=where, reason=error.message)
    if isinstance(error, KeyError):
        return InventoryError.of("expression-key-missing", where=where, key=error.args[0])
    reason = error.message if isinstance(error, jinja2.TemplateError) else str(error)
    return InventoryError.of("expression-failed", where=where, reason=reason or type(error).__name__)
