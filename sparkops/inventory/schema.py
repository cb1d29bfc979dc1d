"""The JSON Schema of an inventory's own keys. The variables of roles are added by `json_schema`.

It must not know which roles there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
"""A JSON Schema."""

NAME = "^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"


def _names(description: str) -> dict[str, object]:
    return {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "description": description}


PASSWORD: Mapping[str, object] = {
    "type": "string",
    "secret": True,
    "description": "a secret: !env NAME, !file PATH or !command [argv…]",
}
CONNECTION: Mapping[str, object] = {
    "type": ["object", "string"],
    "pattern": "^local$",
    "additionalProperties": False,
    "description": "how to reach a node, ~/.ssh/config honoured for the rest; `local` is short for {type: local}",
    "properties": {
        "type": {"enum": ["ssh", "local"], "description": "local: the node is the machine that runs sparkops"},
        "user": {"type": "string", "minLength": 1, "description": "the user to log in as"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535, "description": "the port of sshd"},
        "become": {"type": "boolean", "description": "whether to act as root through sudo"},
        "host_key": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "description": "the host's public keys (ssh-ed25519 AAAA…), any of which is accepted; else known_hosts",
        },
        "identity_file": {"type": "string", "description": "the private key to log in with"},
        "proxy_jump": {"type": "string", "description": "the hosts to go through, as ProxyJump of ssh_config"},
        "state_dir": {
            "type": "string",
            "pattern": "^/",
            "description": "sparkops' folder on the node; /var/lib/sparkops",
        },
        "ssh_password": PASSWORD,
        "become_password": PASSWORD,
        "connect_timeout": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "seconds until a node counts as unreachable",
        },
        "keepalive": {
            "type": "number",
            "minimum": 0,
            "description": "seconds between keepalive messages; 0 sends none",
        },
    },
}

_ROLES = _names("further roles, from roles/NAME/ beside the inventory or built in")
VARS = {
    "type": ["object", "null"],
    "description": "variables, in a namespace per role: {driver: {accept: [...]}}",
}

GROUP: Schema = {
    "type": "object",
    "additionalProperties": False,
    "required": ["nodes"],
    "properties": {
        "nodes": _names("the nodes of the group"),
        "connection": CONNECTION,
        "vars": VARS,
        "roles": _ROLES,
    },
}

NODE: Schema = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {
        "host": {
            "type": "string",
            "minLength": 1,
            "description": "address, name or ssh_config alias; else the node's name",
        },
        "connection": CONNECTION,
        "vars": VARS,
        "roles": _ROLES,
        "state": {
            "enum": ["present", "retired"],
            "description": "retired: apply removes the units, files and links of its roles and services",
        },
    },
}

SERVICE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "recipe": {"type": "string", "description": "recipes/NAME.yml beside the inventory, or a built-in one"},
        "nodes": {**_names("the nodes (or groups) that serve it, the head first"), "minItems": 1},
        "replicas": {
            "type": "array",
            "items": {**_names("the nodes (or groups) of one engine, the head first"), "minItems": 1},
            "minItems": 1,
            "description": "instead of nodes: several engines of the same service, each on nodes of its own",
        },
        "roles": _ROLES,
        "state": {
            "enum": ["present", "retired"],
            "description": "retired: apply removes its unit and files; image and checkpoint stay",
        },
        "vars": VARS,
        "per_node": {
            "type": "object",
            "additionalProperties": {"type": ["object", "null"]},
            "description": "values for single nodes: {NODE: {port: 8001}}",
        },
    },
}

ACCEPT: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["id", "reason"],
    "properties": {
        "id": {"type": "string", "description": "the id of the violation or finding"},
        "reason": {"type": "string", "minLength": 1, "description": "why it is accepted"},
        "until": {
            "type": "string",
            "format": "date",
            "description": "the last day on which it is accepted, YYYY-MM-DD",
        },
    },
}

CORE: Schema = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {
        "^x-": {"description": "yours: sparkops reads nothing there; a place for YAML anchors, as in Compose files"}
    },
    "required": ["version", "cluster", "nodes"],
    "properties": {
        "version": {"const": 1, "description": "the version of this format"},
        "cluster": {
            "type": "string",
            "pattern": NAME,
            "description": "the name under which nodes record what this inventory owns",
        },
        "renamed_from": {
            "type": "string",
            "pattern": NAME,
            "description": "the cluster's former name; what nodes recorded under it is taken over, nothing restarted",
        },
        "connection": CONNECTION,
        "vars": VARS,
        "roles": _ROLES,
        "groups": {
            "type": "object",
            "description": "nodes that share settings, by name: {GROUP: {nodes: [...], vars: {...}}}",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": GROUP,
        },
        "nodes": {
            "type": "object",
            "description": "the machines, by name: {NODE: {host: ADDRESS}}",
            "minProperties": 1,
            "propertyNames": {"pattern": NAME},
            "additionalProperties": NODE,
        },
        "services": {
            "type": "object",
            "description": "the engines to run, by name: {SERVICE: {nodes: [...], recipe: NAME}}",
            "propertyNames": {"pattern": NAME},
            "additionalProperties": SERVICE,
        },
        "accept": {"type": "array", "items": ACCEPT, "description": "violations and findings that are accepted"},
    },
}

_CONTEXT = ("node", "nodes", "cluster", "item", "argv", "fact", "folder", "render")
_TOP = frozenset(CORE["properties"]) | frozenset(_CONTEXT)
RESERVED = (
    _TOP | frozenset(GROUP["properties"]) | frozenset(NODE["properties"]) | frozenset(SERVICE["properties"])
) - {"host"}
"""Words that can't be the name of a user's role, since they mean something else where a namespace may stand.

`host` is the exception: on a node it is the address, and the variables of the role `host` stand under `vars`.
"""
