"""What a role says about itself: its scope, its order, its variables. Found beside the inventory, then bundled.

The variables are needed to check and merge an inventory; what the role's resources mean is `reconcile.roles`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sparkops.core import data
from sparkops.core.errors import InventoryError
from sparkops.core.wording import Message
from sparkops.inventory.document import Document, read
from sparkops.inventory.faults import Faults
from sparkops.inventory.merge import merge
from sparkops.inventory.schema import RESERVED
from sparkops.inventory.validate import check_schema, validate

BUILT_IN: Mapping[str, Literal["node", "service"]] = {
    "host": "node",
    "driver": "node",
    "fabric": "node",
    "uniform": "service",
    "image": "service",
    "checkpoint": "service",
    "service": "service",
    "health": "service",
    "rollout": "service",
}
"""The roles that every node or service has, in their order."""

SCHEMA: Mapping[str, Any] = {
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
    """

    name: str
    scope: Literal["node", "service"]
    document: Document | None
    summary: str = ""
    after: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"}, repr=False)
    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    own: bool = False

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


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A role's schema with unknown variables refused, unless it says otherwise itself."""
    return {"type": "object", "additionalProperties": False, **schema}


def defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of an object's schema, those of nested objects included; variables without one are `None`."""
    found: dict[str, Any] = {}
    for name, part in schema.get("properties", {}).items():
        if not isinstance(part, Mapping):
            continue
        own = part.get("default")
        if "properties" in part and (own is None or isinstance(own, Mapping)):
            found[name] = merge(defaults(part), own or {})
        else:
            found[name] = own
    return found


def complete(schema: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with every variable that the schema declares; one that nothing sets is `None`, never undefined."""
    found = dict(values)
    for name, part in schema.get("properties", {}).items():
        value = found.setdefault(name, None)
        if isinstance(part, Mapping) and "properties" in part and isinstance(value, Mapping):
            found[name] = complete(part, value)
    return found


def _shown(file: Path, own: bool) -> str:
    """A bundled role is shown by its short path, the user's by the path under which it was found."""
    return str(file) if own else str(Path(*file.parts[-3:]))
