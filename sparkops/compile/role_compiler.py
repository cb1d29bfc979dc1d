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
class Entry:
    """One compiled entry of a role's `resources:`."""

    kind: type[Resource]
    name: Value
    parameters: Mapping[str, Value]
    where: str
    control: Mapping[str, Value]

    def controlled(self, word: str, context: Context, default: object = None) -> Any:
        """What a word of CONTROL says here."""
        return self.control[word](context) if word in self.control else default


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


class RoleCompiler:
    """The roles of one compilation; each role file is compiled once, when it is first used."""

    def __init__(self, placeholders: SecretPlaceholders, beside: Path) -> None:
        self._placeholders = placeholders
        self._beside = beside
        self._compiled: dict[str, tuple[Expressions, tuple[Entry, ...]]] = {}

    def make(self, role: Role, target: RoleTarget, context: Context) -> list[Declared]:
        """The resources of a role at a target, in order. Raises InventoryError with the faults of the role file."""
        expressions, entries = self._entries(role)
        return [made for entry in entries for made in self._expand(expressions, entry, target, context)]

    def _entries(self, role: Role) -> tuple[Expressions, tuple[Entry, ...]]:
        if role.name not in self._compiled:
            if role.document is None or role.folder is None:
                raise InventoryError.of("builtin-role-missing", role=role.name)
            folders = (role.folder / "templates", *data.folders("templates", self._beside))
            expressions = Expressions(self._placeholders, [folder for folder in folders if folder.is_dir()])
            self._compiled[role.name] = expressions, _Reader(role.document, expressions).entries()
        return self._compiled[role.name]

    def _expand(
        self, expressions: Expressions, entry: Entry, target: RoleTarget, context: Context
    ) -> Iterator[Declared]:
        for here in _bindings(entry, context):
            if not entry.controlled("when", here, True):
                continue
            if target.retired and not _retires(entry):
                continue
            with located_errors(entry.where):
                made = self._one(expressions, entry, target, here)
            yield made

    def _one(self, expressions: Expressions, entry: Entry, target: RoleTarget, context: Context) -> Declared:
        given = {key: self._given(entry, key, value(context)) for key, value in entry.parameters.items()}
        given = {key: value for key, value in given.items() if value is not None}
        template = entry.controlled("template", context)
        if template is not None:
            given["content"] = expressions.template(str(template), context, entry.where)
        name = entry.name(context)
        if self._placeholders.holds(name) or not isinstance(name, (str, int, float)) or name == "":
            raise InventoryError.of(
                "resource-name-not-text",
                where=entry.where,
                kind=entry.kind.kind,
                name="secret" if self._placeholders.holds(name) else repr(name),
            )
        after = tuple(_ids(entry, context, target.node))
        if target.retired:
            given["state"] = "absent"
        try:
            resource = entry.kind(
                node=target.node,
                name=str(name),
                role=target.role,
                service=target.service,
                peer_nodes=target.peers,
                engine_nodes=target.engine,
                where=entry.where,
                **given,
            )
        except (TypeError, ValueError) as error:
            raise InventoryError.of(
                "resource-parameter-invalid", where=entry.where, kind=entry.kind.kind, name=name, reason=str(error)
            ) from error
        return resource, after

    def _given(self, entry: Entry, key: str, value: object) -> Any:
        """A parameter as its kind takes it; a secret only where the kind has a place for one."""
        opened = self._placeholders.open(value)
        if not self._placeholders.holds(value):
            return opened
        takes = next(str(field.type) for field in fields(entry.kind) if field.name == key)
        if "Secret" in takes or takes == "Any":
            return opened
        if "Content" in takes and isinstance(opened, Secret):
            return Content(opened)
        raise InventoryError.of(
            "secret-not-allowed-here",
            where=entry.where,
            key=key,
            kind=entry.kind.kind,
            secret=self._placeholders.origin(value),
        )


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


def _retires(entry: Entry) -> bool:
    """Whether an entry's thing goes with what is retired; what may hold data or serve others stays."""
    return entry.kind.retires({*entry.parameters, *({"template"} & entry.control.keys())})


def _bindings(entry: Entry, context: Context) -> Iterator[Context]:
    """The context of each resource that an entry stands for: one, or one per item of `for_each`."""
    if "for_each" not in entry.control:
        yield context
        return
    items = entry.controlled("for_each", context)
    if isinstance(items, Mapping):
        items = [{"key": key, "value": value} for key, value in items.items()]
    if items is None:
        items = []
    if not isinstance(items, list):
        raise InventoryError.of("for-each-not-a-list", where=entry.where, type_name=type(items).__name__)
    for item in items:
        yield {**context, "item": item}


def _ids(entry: Entry, context: Context, node: str) -> Iterator[str]:
    """The ids under `after:`; one without a node means this node; an item may itself be a list."""
    named = entry.controlled("after", context, [])
    for each in named if isinstance(named, list) else [named]:
        for text in each if isinstance(each, list) else [each]:
            if not isinstance(text, str) or " " not in text.strip():
                raise InventoryError.of("after-malformed", where=entry.where, text=text)
            yield text if " @" in text else f"{text} @{node}"
