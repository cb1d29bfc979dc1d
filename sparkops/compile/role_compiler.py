"""From a `role.yml` and merged variables to resources of one node.

Each entry of `resources:` is `{KIND: NAME, parameter: …, when: …, for_each: …, after: […], template: …}`; the first key
is the kind. It must not know the order of roles, nor nodes other than the one at hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from sparkops import resources
from sparkops.compile.expressions import Context, Expressions, Value, located_errors
from sparkops.compile.secret_placeholders import SecretPlaceholders
from sparkops.core import data
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Content, Secret
from sparkops.inventory.declarations import Role
from sparkops.inventory.document import Document, Where
from sparkops.inventory.faults import Faults, suggest
from sparkops.resources.resource import Resource

CONDITIONS = ("when", "for_each")
CONTROL = (*CONDITIONS, "after", "template")
_BASE = frozenset(field.name for field in fields(Resource))


@dataclass(frozen=True, slots=True)
class RoleTarget:
    """Where a role is applied: the node, and for a service role the service, all its nodes and those of its engine."""

    role: str
    node: str
    service: str | None = None
    peers: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()
    retired: bool = False


Declared: TypeAlias = tuple[Resource, tuple[str, ...]]
"""A resource, and the ids that its entry names under `after:`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One compiled entry of a role's `resources:`; `control` has its words of CONTROL."""

    expressions: Expressions
    kind: type[Resource]
    name: Value
    parameters: Mapping[str, Value]
    where: str
    control: Mapping[str, Value]

    def resources(self, target: RoleTarget, context: Context) -> Iterator[Declared]:
        """What it stands for at a target. Of what is retired only what neither may hold data nor serve others."""
        if target.retired and not self.kind.retires({*self.parameters, *({"template"} & self.control.keys())}):
            return
        for here in self._bindings(context):
            if self._controlled("when", here, True):
                with located_errors(self.where):
                    made = self._one(target, here)
                yield made

    def _controlled(self, word: str, context: Context, default: object = None) -> Any:
        return self.control[word](context) if word in self.control else default

    def _bindings(self, context: Context) -> Iterator[Context]:
        """The context of each resource that it stands for: one, or one per item of `for_each`."""
        if "for_each" not in self.control:
            yield context
            return
        items = self._controlled("for_each", context)
        if isinstance(items, Mapping):
            items = [{"key": key, "value": value} for key, value in items.items()]
        if not isinstance(items, (list, type(None))):
            raise InventoryError.of("for-each-not-a-list", where=self.where, type_name=type(items).__name__)
        yield from ({**context, "item": item} for item in items or ())

    def _named(self, context: Context, node: str) -> Iterator[str]:
        """The ids under `after:`; one without a node means this node; an item may itself be a list."""
        named = self._controlled("after", context, [])
        for each in named if isinstance(named, list) else [named]:
            for text in each if isinstance(each, list) else [each]:
                if not isinstance(text, str) or " " not in text.strip():
                    raise InventoryError.of("after-malformed", where=self.where, text=text)
                yield text if " @" in text else f"{text} @{node}"

    def _one(self, target: RoleTarget, context: Context) -> Declared:
        placeholders = self.expressions.placeholders
        given = {key: self._given(key, value(context)) for key, value in self.parameters.items()}
        given = {key: value for key, value in given.items() if value is not None}
        template = self._controlled("template", context)
        if template is not None:
            given["content"] = self.expressions.template(str(template), context, self.where)
        name = self.name(context)
        if placeholders.holds(name) or not isinstance(name, (str, int, float)) or name == "":
            raise InventoryError.of(
                "resource-name-not-text",
                where=self.where,
                kind=self.kind.kind,
                name="secret" if placeholders.holds(name) else repr(name),
            )
        after = tuple(self._named(context, target.node))
        if target.retired:
            given["state"] = "absent"
        try:
            resource = self.kind(
                node=target.node,
                name=str(name),
                role=target.role,
                service=target.service,
                peer_nodes=target.peers,
                engine_nodes=target.engine,
                where=self.where,
                **given,
            )
        except (TypeError, ValueError) as error:
            raise InventoryError.of(
                "resource-parameter-invalid", where=self.where, kind=self.kind.kind, name=name, reason=str(error)
            ) from error
        return resource, after

    def _given(self, key: str, value: object) -> Any:
        """A parameter as its kind takes it; a secret only where the kind has a place for one."""
        placeholders = self.expressions.placeholders
        opened = placeholders.open(value)
        if not placeholders.holds(value):
            return opened
        takes = next(str(field.type) for field in fields(self.kind) if field.name == key)
        if "Secret" in takes or takes == "Any":
            return opened
        if "Content" in takes and isinstance(opened, Secret):
            return Content(opened)
        raise InventoryError.of(
            "secret-not-allowed-here",
            where=self.where,
            key=key,
            kind=self.kind.kind,
            secret=placeholders.origin(value),
        )


class RoleCompiler:
    """The roles of one compilation; each role file is compiled once, when it is first used."""

    def __init__(self, placeholders: SecretPlaceholders, beside: Path) -> None:
        self._placeholders = placeholders
        self._beside = beside
        self._compiled: dict[str, tuple[Entry, ...]] = {}

    def make(self, role: Role, target: RoleTarget, context: Context) -> list[Declared]:
        """The resources of a role at a target, in order. Raises InventoryError with the faults of the role file."""
        if role.name not in self._compiled:
            if role.document is None or role.folder is None:
                raise InventoryError.of("builtin-role-missing", role=role.name)
            folders = (role.folder / "templates", *data.folders("templates", self._beside))
            expressions = Expressions(self._placeholders, [folder for folder in folders if folder.is_dir()])
            self._compiled[role.name] = _Reader(role.document, expressions).entries()
        return [made for entry in self._compiled[role.name] for made in entry.resources(target, context)]


class _Reader:
    """Compiles the entries of one role file and collects their faults."""

    def __init__(self, document: Document, expressions: Expressions) -> None:
        self.document = document
        self.expressions = expressions
        self.faults = Faults()

    def entries(self) -> tuple[Entry, ...]:
        found = []
        for index, content in enumerate(self.document.data["resources"]):
            try:
                entry = self._entry(content, ("resources", index))
            except InventoryError as error:
                self.faults.take(error)
            else:
                found.append(entry)
        self.faults.raise_any()
        return tuple(found)

    def _entry(self, content: Mapping[str, object], path: Where) -> Entry:
        word = next(iter(content))
        where = self.document.where_key((*path, word))
        kind = self._kind(word, content, where)
        known = {field.name for field in fields(kind) if field.init and field.compare} - _BASE
        for key in content:
            if key not in (word, *known, *CONTROL) or (key == "template" and "content" not in known):
                self.faults.add(
                    "resource-parameter-unknown",
                    where=self.document.where_key((*path, key)),
                    kind=word,
                    parameter=key,
                    suggestion=suggest(key, (*known, *CONTROL)),
                )
        if "template" in content and "content" in content:
            self.faults.add(
                "file-content-and-template",
                where=self.document.where_key((*path, "template")),
            )
        return Entry(
            expressions=self.expressions,
            kind=kind,
            name=self._value(content, (*path, word)),
            parameters={
                key: self._value(content, (*path, key))
                for key in content
                if key != word and key in known and key not in CONTROL
            },
            where=where,
            control={key: self._value(content, (*path, key)) for key in CONTROL if content.get(key) is not None},
        )

    def _kind(self, word: str, content: Mapping[str, object], where: str) -> type[Resource]:
        with contextlib.suppress(KeyError):
            return resources.kind(word)
        names = resources.names()
        if later := next((key for key in content if key in names), None):
            raise InventoryError.of("resource-kind-not-first", where=where, word=word, kind=later)
        raise InventoryError.of("resource-kind-unknown", where=where, word=word, suggestion=suggest(word, names))

    def _value(self, content: Mapping[str, object], path: Where) -> Value:
        word = str(path[-1])
        read = self.expressions.condition if word in CONDITIONS else self.expressions.value
        return read(content[word], self.document.where(path))
