"""From a checked document to the typed `Inventory`. Nothing here can fail on the user's account any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sparkops.core.wording import Message
from sparkops.inventory.check import members_of, replicas_of, split
from sparkops.inventory.declarations import BUILT_IN, Role
from sparkops.inventory.document import Document, Where
from sparkops.inventory.inventory import Accept, Connection, Inventory, Layers, Node, Service
from sparkops.inventory.lockfile import read_lock
from sparkops.inventory.merge import Layer, Variables, merge
from sparkops.inventory.recipes import PLACE, Recipe
from sparkops.inventory.schema import GROUP, NODE, SERVICE, Schema


def build(
    path: Path,
    document: Document,
    roles: Mapping[str, Role],
    recipes: Mapping[str, Recipe],
    extra: tuple[Layer, ...],
    notices: tuple[Message, ...],
) -> Inventory:
    """The inventory that a document without faults declares."""
    builder = _Builder(document, roles, recipes)
    return Inventory(
        path=path,
        cluster=document.data["cluster"],
        nodes={name: builder.node(name) for name in builder.nodes},
        services={name: builder.service(name) for name in builder.services},
        groups=builder.members,
        roles=roles,
        accept=tuple(Accept(**entry) for entry in document.data.get("accept", ())),
        renamed_from=document.data.get("renamed_from", ""),
        notices=notices,
        sources=builder.layers(extra),
        lock=read_lock(path),
    )


class _Builder:
    def __init__(self, document: Document, roles: Mapping[str, Role], recipes: Mapping[str, Recipe]) -> None:
        self.document = document
        self.top: Mapping[str, object] = document.data
        self.roles = roles
        self.recipes = recipes
        self.groups: Variables = self.top.get("groups", {})
        self.nodes: Variables = {name: node or {} for name, node in self.top["nodes"].items()}
        self.services: Variables = self.top.get("services", {})
        self.members = {name: tuple(group["nodes"]) for name, group in self.groups.items()}
        self.of_node: dict[str, list[str]] = {name: [] for name in self.nodes}
        for group, members in self.members.items():
            for node in members:
                self.of_node[node].append(group)
        self.of_services: dict[str, list[str]] = {name: [] for name in self.nodes}
        for service in self.services.values():
            for node in members_of(service, self.groups):
                self.of_services[node] += service.get("roles", ())

    def node(self, name: str) -> Node:
        content = self.nodes[name]
        groups = self.of_node[name]
        parts = [self.top, *(self.groups[group] for group in groups), content]
        wanted = [role for part in parts for role in part.get("roles", ())]
        wanted += self.of_services[name]
        return Node(
            name=name,
            host=content.get("host", name),
            connection=_connection(part.get("connection", {}) for part in parts),
            groups=tuple(groups),
            state=content.get("state", "present"),
            roles=self._of_scope("node", wanted),
            where=self.document.where_key(("nodes", name)),
        )

    def service(self, name: str) -> Service:
        content = self.services[name]
        nodes = members_of(content, self.groups)
        return Service(
            name=name,
            nodes=nodes,
            declared_replicas=replicas_of(content, self.groups),
            recipe=self.recipes.get(content.get("recipe", "")),
            state=content.get("state", "present"),
            roles={node: self._service_roles(content, node) for node in nodes},
            where=self.document.where_key(("services", name)),
        )

    def layers(self, extra: tuple[Layer, ...]) -> Layers:
        return Layers(
            defaults=tuple(
                Layer(f"role {name}", {name: role.defaults}, role.document, {name: ("variables", "properties")})
                for name, role in self.roles.items()
                if role.document is not None
            ),
            recipes={
                name: self._recipe(self.recipes[service["recipe"]])
                for name, service in self.services.items()
                if "recipe" in service
            },
            top=self._spaces("vars", self.top, (), direct={}),
            groups={name: self._part("group", GROUP, "groups", name) for name in self.groups},
            nodes={name: self._part("node", NODE, "nodes", name) for name in self.nodes},
            services={name: self._service_layers(name) for name in self.services},
            per_node={
                (name, node): self._direct(f"{name} on {node}", values or {}, ("services", name, "per_node", node))
                for name, service in self.services.items()
                for node, values in service.get("per_node", {}).items()
            },
            extra=extra,
        )

    def _service_roles(self, content: Mapping[str, object], node: str) -> tuple[str, ...]:
        groups = [self.groups[group] for group in self.of_node[node]]
        parts = [self.top, *groups, self.nodes[node], content]
        return self._of_scope("service", [role for part in parts for role in part.get("roles", ())])

    def _of_scope(self, scope: str, wanted: Iterable[str]) -> tuple[str, ...]:
        """The built-in roles of that scope in their order, then the wanted ones in theirs."""
        built_in = [name for name, of in BUILT_IN.items() if of == scope]
        return tuple(dict.fromkeys([*built_in, *(name for name in wanted if self.roles[name].scope == scope)]))

    def _part(self, kind: str, shape: Schema, table: str, name: str) -> tuple[Layer, ...]:
        content = (self.nodes if table == "nodes" else self.groups)[name]
        direct = {key: value for key, value in content.items() if key not in shape["properties"]}
        return self._spaces(f"{kind} {name}", content, (table, name), direct)

    def _service_layers(self, name: str) -> tuple[Layer, ...]:
        content = self.services[name]
        direct = {key: value for key, value in content.items() if key not in SERVICE["properties"]}
        path: Where = ("services", name)
        layers = self._spaces(f"service {name}", content, path, direct={})
        return (*layers, self._direct(f"service {name}", direct, path)) if direct else layers

    def _spaces(self, name: str, content: Variables, path: Where, direct: Mapping[str, object]) -> tuple[Layer, ...]:
        """The layers of a part: first what stands under `vars`, then the namespaces that stand in it directly."""
        found = []
        for values, place in ((content.get("vars") or {}, (*path, "vars")), (direct, path)):
            if values:
                data = {role: space or {} for role, space in values.items()}
                found.append(Layer(name, data, self.document, {role: (*place, role) for role in data}))
        return tuple(found)

    def _direct(self, name: str, values: Mapping[str, object], path: Where) -> Layer:
        spaces, variables = split(values, self.roles)
        data = {role: space or {} for role, space in spaces.items()}
        at: dict[str, Where] = {role: (*path, role) for role in data}
        return Layer(name, {**data, "service": variables}, self.document, {**at, "service": path})

    def _recipe(self, recipe: Recipe) -> Layer:
        at = {role: (*PLACE, role) for role in recipe.variables}
        return Layer(f"recipe {recipe.name}", recipe.variables, recipe.document, at)


def _connection(parts: Iterable[Mapping[str, object] | str]) -> Connection:
    """The parts merged, the weakest first; a word is short for the type."""
    merged: dict[str, Any] = {}
    for part in parts:
        merged = merge(merged, {"type": part} if isinstance(part, str) else part)
    keys = merged.get("host_key", ())
    return Connection(**{**merged, "host_key": (keys,) if isinstance(keys, str) else tuple(keys)})
