"""What a role says about itself: its scope, its order, its variables. Found beside the inventory, then bundled.

The variables are needed to check and merge an inventory; what the role's resources mean is `reconcile.roles`' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from sparkops.core import data
from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.inventory.document import Document, read
from sparkops.inventory.faults import Faults
from sparkops.inventory.merge import merge
from sparkops.inventory.schema import RESERVED, Schema
from sparkops.inventory.validate import check_schema, validate

READ = frozenset({"image", "checkpoint", "service", "rollout"})
"""Built-in roles whose variables sparkops and other roles read: an own role in their place leaves them readable."""
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
BUILT_IN: Mapping[str, Literal["node", "service"]] = {
    "host": "node",
    "driver": "node",
    "fabric": "node",
    "reboot": "node",
    "uniform": "service",
    "image": "service",
    "checkpoint": "service",
    "service": "service",
    "health": "service",
    "rollout": "service",
}
"""The roles that every node or service has, in their order."""

SCHEMA: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["summary", "scope", "resources"],
    "properties": {
        "summary": {"type": "string", "description": "what the role brings about, in one line"},
        "scope": {
            "enum": ["node", "service"],
            "description": "whether it runs once per node or once per service and node",
        },
        "after": {
            "type": "array",
            "items": {"type": "string"},
            "uniqueItems": True,
            "description": "the roles whose resources must be as declared before",
        },
        "variables": {
            "type": "object",
            "required": ["properties"],
            "properties": {"type": {"const": "object"}, "properties": {"type": "object"}},
            "description": "a JSON Schema of an object: {type: object, properties: {NAME: {type: …, default: …}}}",
        },
        "resources": {
            "type": "array",
            "items": {"type": "object", "minProperties": 1},
            "description": "a list of {KIND: NAME, parameter: …, when: …, for_each: …, after: […]}",
        },
    },
}


@dataclass(frozen=True, slots=True)
class Role:
    """One `role.yml`. `variables` is the JSON Schema of its namespace; `own` says that it stands beside the inventory.

    `document` is None for a built-in role that the installation lacks; that matters only when the role is used.
    `replaced` is the schema of the built-in role in whose place an own one stands, where sparkops reads its variables.
    """

    name: str
    scope: Literal["node", "service"]
    document: Document | None
    summary: str = ""
    after: tuple[str, ...] = ()
    variables: Schema = field(default_factory=lambda: {"type": "object"}, repr=False)
    defaults: Mapping[str, object] = field(default_factory=dict, repr=False)
    own: bool = False
    replaced: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path | None:
        return self.document.folder if self.document else None


def find_roles(beside: Path | None) -> tuple[dict[str, Role], tuple[Message, ...]]:
    """Every role by name, the built-in ones first and in their order; and what has to be said about them.

    Raises InventoryError with the faults of all role files.
    """
    faults = Faults()
    notices: list[Message] = []
    found: dict[str, Role] = {}
    for folder in data.folders("roles", beside):
        own = beside is not None and folder == beside / "roles"
        for file in sorted(folder.glob("*/role.yml")):
            name = file.parent.name
            if name in found:
                notices.append(Message.of("role-shadows-built-in", role=name))
                if name in READ:
                    found[name] = _in_place_of(read_role(file, shown=_shown(file, own)), found[name], faults)
                continue
            try:
                found[name] = read_role(file, own=own, shown=_shown(file, own))
            except InventoryError as error:
                faults.take(error)
    faults.raise_any()
    ordered = {name: found.pop(name, Role(name, scope, None)) for name, scope in BUILT_IN.items()}
    return {**ordered, **found}, tuple(notices)


def read_role(file: Path, *, own: bool = False, shown: str | None = None) -> Role:
    """The role in one file. Raises InventoryError."""
    document = read(file, shown)
    name = file.parent.name
    faults = Faults()
    validate(document, (), SCHEMA, faults, label=f"role {name}")
    if isinstance(document.data, dict) and "variables" in document.data and own:
        check_schema(document, ("variables",), faults)
    faults.raise_any()
    content = document.data
    scope = content["scope"]
    if BUILT_IN.get(name, scope) != scope:
        faults.add("role-scope-changed", where=document.where(("scope",)), name=name, built_in=BUILT_IN[name])
    if own and name in RESERVED:
        faults.add("role-name-reserved", where=document.where(), name=name)
    faults.raise_any()
    variables = closed(content.get("variables", {"type": "object", "properties": {}}))
    return Role(
        name=name,
        scope=scope,
        document=document,
        summary=content["summary"],
        after=tuple(content.get("after", ())),
        variables=variables,
        defaults=defaults(variables),
        own=own,
    )


def _in_place_of(built_in: Role, own: Role, faults: Faults) -> Role:
    """An own role with what sparkops reads of the built-in one.

    A variable of both must not take other types; one without a type is as the built-in one.
    """
    for path in _widened(own.variables, built_in.variables):
        assert own.document is not None
        place = own.document.where_key(("variables", *path))
        variable = ".".join(part for part in path if part != "properties")
        faults.add("role-variable-type-changed", where=place, role=own.name, variable=variable)
    known = built_in.variables.get("properties", {})
    properties = {
        name: {**known.get(name, {}), **part} if isinstance(part, Mapping) and not _typed(part) else part
        for name, part in own.variables.get("properties", {}).items()
    }
    variables = {**own.variables, "properties": properties}
    return replace(own, variables=variables, defaults=defaults(variables), replaced=built_in.variables)


def _widened(own: Schema, built_in: Schema) -> Iterator[tuple[str, ...]]:
    """The paths of the own properties that take types which the built-in ones of the same names do not."""
    for name, part in own.get("properties", {}).items():
        known = built_in.get("properties", {}).get(name)
        if not isinstance(part, Mapping) or not isinstance(known, Mapping):
            continue
        if _typed(part) and not types_of(part) <= types_of(known):
            yield "properties", name
        else:
            yield from (("properties", name, *path) for path in _widened(part, known))


def _typed(part: Mapping[str, object]) -> bool:
    return any(word in part for word in ("type", "enum", "const", "anyOf", "oneOf"))


def types_of(part: Schema) -> frozenset[str]:
    """The JSON types that a schema's values may have; all of them where it does not say."""
    if "type" in part:
        given = part["type"]
        return frozenset([given] if isinstance(given, str) else given)
    values = part["enum"] if "enum" in part else [part["const"]] if "const" in part else None
    if values is not None:
        return frozenset("null" if each is None else JSON_TYPES.get(type(each), "object") for each in values)
    choices = [each for word in ("anyOf", "oneOf") for each in part.get(word, ()) if isinstance(each, Mapping)]
    return frozenset().union(*map(types_of, choices)) if choices else frozenset({"null", *JSON_TYPES.values()})


def closed(schema: Mapping[str, object]) -> Mapping[str, object]:
    """A role's schema with unknown variables refused, unless it says otherwise itself."""
    return {"type": "object", "additionalProperties": False, **schema}


def defaults(schema: Schema) -> dict[str, object]:
    """The defaults of an object's schema, those of nested objects included; variables without one are `None`."""
    found: dict[str, object] = {}
    for name, part in schema.get("properties", {}).items():
        if not isinstance(part, Mapping):
            continue
        own = part.get("default")
        if "properties" in part and (own is None or isinstance(own, Mapping)):
            found[name] = merge(defaults(part), own or {})
        else:
            found[name] = own
    return found


def complete(schema: Schema, values: Schema) -> dict[str, object]:
    """`values` with every variable that the schema declares, never undefined.

    One that nothing sets is `None` where its schema takes null, else its default: a null unsets, and what reads a list
    or a mapping gets one.
    """
    found = dict(values)
    unset = defaults(schema)
    for name, part in schema.get("properties", {}).items():
        takes_null = not isinstance(part, Mapping) or "null" in types_of(part)
        if found.get(name) is None:
            found[name] = None if takes_null else unset[name]
        if isinstance(part, Mapping) and "properties" in part and isinstance(found[name], Mapping):
            found[name] = complete(part, found[name])
    return found


def _shown(file: Path, own: bool) -> str:
    """A bundled role is shown by its short path, the user's by the path under which it was found."""
    return str(file) if own else str(Path(*file.parts[-3:]))
