"""The one JSON Schema of an inventory: its own keys, and the variables of every role.

The same dicts check an inventory when it is loaded and are published for editors and documentation by `schema()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparkops.inventory.declarations import Role, find_roles
from sparkops.inventory.schema import CORE, GROUP, NODE, SERVICE, VARS, Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def checked(roles: Mapping[str, Role]) -> dict[str, object]:
    """The schema of the core alone. Namespaces and service variables are let through: they are checked role by role."""
    own = {name: {"type": ["object", "null"]} for name in roles if name != "host"}
    return _compose(
        group={**GROUP, "properties": {**own, **GROUP["properties"]}},
        node={**NODE, "properties": {**own, **NODE["properties"]}},
        service={**SERVICE, "additionalProperties": True},
        namespaces={"type": ["object", "null"]},
    )


def published(roles: Mapping[str, Role]) -> dict[str, object]:
    """The schema of a whole inventory, for editors: each role's variables stand once, under `$defs`."""
    links = {name: {"$ref": f"#/$defs/{name}"} for name in roles}
    own = {name: link for name, link in links.items() if name != "host"}
    in_service = {name: links[name] for name, role in roles.items() if role.scope == "service" and name != "service"}
    direct = roles["service"].variables.get("properties", {}) if "service" in roles else {}
    service: dict[str, Any] = {**SERVICE, "properties": {**direct, **in_service, **SERVICE["properties"]}}
    per_node = {"type": ["object", "null"], "properties": {**direct, **in_service}, "additionalProperties": False}
    service["properties"]["per_node"] = {**SERVICE["properties"]["per_node"], "additionalProperties": per_node}
    composed = _compose(
        group={**GROUP, "properties": {**own, **GROUP["properties"]}},
        node={**NODE, "properties": {**own, **NODE["properties"]}},
        service=service,
        namespaces={**VARS, "properties": links, "additionalProperties": False},
    )
    return {
        "$schema": DIALECT,
        "$id": "https://sparkops.dev/schema/inventory-1.json",
        "title": "sparkops inventory",
        "description": "One or more DGX Spark nodes, the services on them, and the state that they shall have.",
        **composed,
        "$defs": {name: _published_role(role) for name, role in roles.items()},
    }


def schema(beside: Path | None = None) -> dict[str, object]:
    """The published schema with the built-in roles and those in `beside`/roles; the same each time."""
    return published(find_roles(beside)[0])


def _compose(
    *,
    group: Mapping[str, object],
    node: Mapping[str, object],
    service: Mapping[str, object],
    namespaces: Mapping[str, object],
) -> dict[str, object]:
    def with_namespaces(part: Schema) -> dict[str, object]:
        return {**part, "properties": {**part["properties"], "vars": namespaces}}

    top = CORE["properties"]
    return {
        **CORE,
        "properties": {
            **top,
            "vars": namespaces,
            "groups": {**top["groups"], "additionalProperties": with_namespaces(group)},
            "nodes": {**top["nodes"], "additionalProperties": with_namespaces(node)},
            "services": {**top["services"], "additionalProperties": with_namespaces(service)},
        },
    }


def _published_role(role: Role) -> dict[str, object]:
    """A role's variables as they may stand in an inventory: each may be null (unset), none is required here."""
    properties = role.variables.get("properties", {})
    shown = {key: value for key, value in role.variables.items() if key not in ("required", "type")}
    text = role.summary or f"variables of the role {role.name}"
    return {
        "description": text,
        **shown,
        "type": ["object", "null"],
        "properties": {name: _or_null(part) for name, part in properties.items()},
    }


def _or_null(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    kept = {key: part[key] for key in ("description", "default") if key in part}
    return {**kept, "anyOf": [part, {"type": "null"}]}
