"""What a schema can't say about an inventory: names that must exist, and the variables of each role.

It reads a document whose shape may still be wrong in places (those faults are known already) and adds faults only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from sparkops.core import host_address
from sparkops.core.secrets import SecretRef
from sparkops.inventory.declarations import Role
from sparkops.inventory.document import Document, Where
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.schema import GROUP, NODE, SERVICE, Schema
from sparkops.inventory.validate import dotted, validate
from sparkops.models import role_variables

Scope = Literal["node", "service", "any"]


class Checker:
    """The checks of one document."""

    def __init__(self, document: Document, roles: Mapping[str, Role], faults: Faults) -> None:
        self.document = document
        self.roles = roles
        self.faults = faults
        self.nodes = self._mapping(document.data, "nodes")
        self.groups = self._mapping(document.data, "groups")
        self.services = self._mapping(document.data, "services")

    def all(self) -> None:
        """Every check of an inventory."""
        top = self.document.data
        self._one_meaning()
        self._roles(top, ())
        self.namespaces(top.get("vars"), ("vars",))
        self._passwords(top, ())
        for name, group in self.groups.items():
            self._part(group, ("groups", name), GROUP)
            self._names(group, ("groups", name, "nodes"), self.nodes, "node")
        for name, node in self.nodes.items():
            self._part(node, ("nodes", name), NODE)
        for name, service in self.services.items():
            if isinstance(service, dict):
                self._service(service, ("services", name))

    def namespaces(self, values: object, path: Where, *, scope: Scope = "any") -> None:
        """A mapping of namespaces: each key a role, each value that role's variables."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            here = (*path, name)
            role = self.roles.get(name)
            if role is None:
                self._at_key("variables-of-unknown-role", here, name=name, suggestion=suggest(name, self.roles))
            elif scope == "service" and role.scope == "node":
                self._at_key("node-role-in-service", here, name=name)
            else:
                self.variables(role, value, here)

    def variables(self, role: Role, value: object, path: Where, also: Iterable[str] = ()) -> None:
        """One layer of a role's variables; what goes beyond their schema is checked where they are of its types."""
        sound = role.document is None or validate(
            self.document, path, role.variables, self.faults, fragment=True, instance=value, also=also
        )
        if sound and isinstance(value, dict):
            for key, id, args in role_variables.faults(role.name, value):
                self.faults.add(id, where=self.document.where_key((*path, *key)), **args)

    def _at(self, id: str, place: Where, /, **args: object) -> None:
        """A fault of the value at a place."""
        self.faults.add(id, where=self.document.where(place), **args)

    def _at_key(self, id: str, place: Where, /, **args: object) -> None:
        """A fault of the key at a place."""
        self.faults.add(id, where=self.document.where_key(place), **args)

    def _host(self, node: Mapping[str, object], path: Where) -> None:
        """A host is an address or a name; who logs in and at which port stands under `connection`."""
        host = node.get("host")
        address = host_address.parse(host) if isinstance(host, str) and not isinstance(host, SecretRef) else None
        if address is not None and address.host != host:
            given = {"user": address.user, "port": address.port}
            listed = ", ".join(f"{key}: {value}" for key, value in given.items() if value is not None)
            lines = f"`host: {address.host}`" + (f" and `connection: {{{listed}}}`" if listed else "")
            self._at("host-with-user-or-port", (*path, "host"), text=host, lines=lines)

    def _part(self, part: object, path: Where, shape: Schema) -> None:
        """A group or a node: its roles, its connection, its namespaces."""
        if not isinstance(part, dict):
            return
        self._host(part, path)
        self._roles(part, path)
        self._passwords(part, path)
        self.namespaces(part.get("vars"), (*path, "vars"))
        for key, value in part.items():
            if key not in shape["properties"] and key in self.roles:
                self.variables(self.roles[key], value, (*path, key))

    def _service(self, service: Mapping[str, object], path: Where) -> None:
        self._roles(service, path)
        known = {**self.nodes, **self.groups}
        self._names(service, (*path, "nodes"), known, "node or group")
        for index, replica in enumerate(_lists(service.get("replicas"))):
            self._names({index: replica}, (*path, "replicas", index), known, "node or group")
        self._placed(service, path)
        self.namespaces(service.get("vars"), (*path, "vars"), scope="service")
        self._direct({key: each for key, each in service.items() if key not in SERVICE["properties"]}, path, SERVICE)
        self._retired(service, path)
        members = [node for node in members_of(service, self.groups) if node in self.nodes]
        for node, values in self._mapping(service, "per_node").items():
            here = (*path, "per_node", node)
            if node not in members:
                self._at_key(
                    "per-node-not-a-member", here, path=dotted(path), node=node, suggestion=suggest(node, members)
                )
            elif isinstance(values, dict):
                self._direct(values, here, {})

    def _placed(self, service: Mapping[str, object], path: Where) -> None:
        """A service says where it runs, once; a node runs one of its engines."""
        if ("nodes" in service) == ("replicas" in service):
            self._at_key(
                "service-nodes-or-replicas", path, service=path[-1], both="both" if "nodes" in service else "none"
            )
        seen: dict[str, int] = {}
        for index, replica in enumerate(replicas_of(service, self.groups)):
            for node in replica:
                if seen.setdefault(node, index) != index:
                    self._at("node-in-two-replicas", (*path, "replicas", index), node=node)

    def _retired(self, service: Mapping[str, object], path: Where) -> None:
        """A service that stays can't stand on a node that goes."""
        if service.get("state") == "retired":
            return
        for node in members_of(service, self.groups):
            if self._mapping(self.nodes, node).get("state") == "retired":
                self._at("service-on-retired-node", (*path, "nodes"), path=dotted(path), node=node)

    def _direct(self, values: Mapping[str, object], path: Where, shape: Schema) -> None:
        """What stands directly in a service: namespaces of service roles, and the variables of the role `service`."""
        spaces, direct = split(values, self.roles)
        self.namespaces(spaces, path, scope="service")
        words = [name for name, role in self.roles.items() if role.scope == "service" and name != "service"]
        self.variables(self.roles["service"], direct, path, also=(*words, *shape.get("properties", ())))

    def _roles(self, part: Mapping[str, object], path: Where) -> None:
        self._names(part, (*path, "roles"), self.roles, "role")

    def _names(self, part: object, path: Where, known: Mapping[str, object], kind: str) -> None:
        for index, name in enumerate(_strings(part.get(path[-1]) if isinstance(part, dict) else None)):
            if name not in known:
                self._at("name-in-list-unknown", (*path, index), kind=kind, name=name, suggestion=suggest(name, known))

    def _passwords(self, part: Mapping[str, object], path: Where) -> None:
        connection = self._mapping(part, "connection")
        if isinstance(part.get("connection"), SecretRef):
            self._at("connection-is-secret", (*path, "connection"))
        for key in ("ssh_password", "become_password"):
            if isinstance(connection.get(key), str):
                self._at("password-in-plain-text", (*path, "connection", key), key=key)

    def _one_meaning(self) -> None:
        """`--limit` takes nodes, groups and services by name, so a name has one meaning."""
        seen: dict[str, str] = {}
        for kind, names in (("node", self.nodes), ("group", self.groups), ("service", self.services)):
            for name in names:
                if name in seen:
                    self._at_key("name-used-twice", (f"{kind}s", name), name=name, seen=seen[name], kind=kind)
                seen.setdefault(name, kind)

    @staticmethod
    def _mapping(part: object, key: str) -> Mapping[str, object]:
        value = part.get(key) if isinstance(part, dict) else None
        return value if isinstance(value, dict) else {}


def split(values: Mapping[str, object], roles: Mapping[str, Role]) -> tuple[dict[str, object], dict[str, object]]:
    """What stands directly in a service, as namespaces of roles and variables of the role `service`."""
    spaces = {key: value for key, value in values.items() if key in roles and key != "service"}
    return spaces, {key: value for key, value in values.items() if key not in spaces}


def members_of(service: Mapping[str, object], groups: Mapping[str, object]) -> tuple[str, ...]:
    """All nodes of a service, groups replaced by their nodes, in order and once."""
    listed = _spelt_out(service.get("nodes"), groups)
    return tuple(dict.fromkeys([*listed, *(node for replica in replicas_of(service, groups) for node in replica)]))


def replicas_of(service: Mapping[str, object], groups: Mapping[str, object]) -> tuple[tuple[str, ...], ...]:
    """The nodes of each declared replica of a service, groups replaced by their nodes."""
    return tuple(_spelt_out(each, groups) for each in _lists(service.get("replicas")))


def _spelt_out(names: object, groups: Mapping[str, object]) -> tuple[str, ...]:
    found: list[str] = []
    for name in _strings(names):
        group = groups.get(name)
        found += _strings(group.get("nodes")) if isinstance(group, dict) else [name]
    return tuple(dict.fromkeys(found))


def _lists(value: object) -> list[object]:
    return [each for each in value if isinstance(each, list)] if isinstance(value, list) else []


def _strings(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else ():
        if isinstance(each, str) and not isinstance(each, SecretRef):
            yield each
