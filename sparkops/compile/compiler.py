"""From an inventory to the resources of each node, with their order: offline, pure but for secrets that are used.

Within a role at one place each resource comes after the one before it. The first resource of a role comes after the
last one of each role in its `after:`, on the same node and for the same service. It must not know how a resource is
observed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol

from sparkops.compile.expressions import Context
from sparkops.compile.role_compiler import Engine, Made, Place
from sparkops.compile.secret_placeholders import Seals
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Secret, SecretRef
from sparkops.inventory.declarations import Role
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.inventory import Inventory, Node, Service
from sparkops.inventory.limit import select
from sparkops.inventory.secrets import Masked
from sparkops.inventory.validate import missing
from sparkops.resources.resource import Resource

_EDGES = frozenset({"after", "role", "service", "peer_nodes", "where"})
"""What two declarations of the same thing may differ in."""


class Resolver(Protocol):
    """Reads a secret: `inventory.secrets.Secrets`, or `Masked` offline."""

    def resolve(self, ref: SecretRef) -> Secret: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """All resources, node by node and role by role.

    `masked` says that every secret in them is `***`; `whole` that nothing was left out: all `nodes`, all roles.
    """

    resources: tuple[Resource, ...]
    notices: tuple[str, ...] = ()
    masked: bool = False
    nodes: tuple[str, ...] = ()
    whole: bool = False

    def of(self, node: str, service: str | None = None) -> tuple[Resource, ...]:
        """The resources of one node, or those of a service on it."""
        return tuple(each for each in self.resources if each.node == node and service in (None, each.service))


def compile(
    inventory: Inventory,
    *,
    limit: Sequence[str] | str | None = None,
    roles: Sequence[str] | None = None,
    secrets: Resolver | None = None,
) -> Compiled:
    """The resources that an inventory declares, of the nodes in `limit` and the named roles.

    Without `secrets` none is read: each is `***`, for what works offline. Raises InventoryError with every fault of
    roles and their use, SecretError for a secret that can't be read.
    """
    for name in roles or ():
        if name not in inventory.roles:
            raise InventoryError(f"there is no role {name!r}", hint=suggest(name, inventory.roles))
    _check_order(inventory.roles)
    nodes = select(inventory, limit)
    compiler = _Compiler(inventory, (secrets or Masked()).resolve)
    table = _Table()
    for node in nodes:
        places = list(_places(inventory, inventory.nodes[node]))
        compiler.add(table, places, None if roles is None else frozenset(roles))
    compiler.faults.raise_any()
    whole = roles is None and len(nodes) == len(inventory.nodes)
    return Compiled(
        resources=table.finish(whole),
        notices=inventory.notices,
        masked=secrets is None,
        nodes=tuple(nodes),
        whole=whole,
    )


class _Compiler:
    def __init__(self, inventory: Inventory, resolve: Any) -> None:
        self.inventory = inventory
        self.seals = Seals(resolve)
        self.engine = Engine(self.seals, inventory.folder)
        self.faults = Faults()
        self.nodes = {name: self._node(node) for name, node in inventory.nodes.items()}

    def add(self, table: _Table, places: Sequence[Place], wanted: frozenset[str] | None) -> None:
        """The resources of one node's roles."""
        made: dict[Place, list[Made]] = {}
        for place in places:
            used = wanted is None or place.role in wanted
            made[place] = self._make(place) if used else []
        ends: dict[Place, tuple[str, ...]] = {}
        for place in _in_order(places, self.inventory.roles):
            before = dict.fromkeys(
                end for earlier in places if _precedes(earlier, place, self.inventory.roles) for end in ends[earlier]
            )
            ends[place] = table.add(made[place], tuple(before), place, self.faults)

    def _make(self, place: Place) -> list[Made]:
        role = self.inventory.roles[place.role]
        try:
            context = self._context(place)
            if self._lacks(role, place, context):
                return []
            return self.engine.make(role, place, context)
        except InventoryError as error:
            self.faults.take(error)
            return []

    def _context(self, place: Place) -> Context:
        """What expressions see: a namespace per role, and `node`, `nodes`, `cluster`, `folder`."""
        spaces = dict(self.seals.seal(self.inventory.variables(place.node, place.service)))
        if place.service is not None:
            service = self.inventory.services[place.service]
            spaces["service"] = {
                **spaces["service"],
                "name": service.name,
                "nodes": list(service.nodes),
                "addresses": self.inventory.addresses(service.name),
                "rank": service.nodes.index(place.node),
                "recipe": service.recipe.name if service.recipe else None,
                "state": "retired" if place.retired else service.state,
            }
        return {
            **spaces,
            "node": self.nodes[place.node],
            "nodes": self.nodes,
            "cluster": self.inventory.cluster,
            "folder": str(self.inventory.folder),
        }

    def _node(self, node: Node) -> Mapping[str, Any]:
        """A node as expressions of any node see it: who it is, and its variables."""
        variables = self.seals.seal(self.inventory.variables(node.name))
        return {
            **{name: space for name, space in variables.items() if name != "host"},
            "name": node.name,
            "host": node.host,
            "groups": list(node.groups),
            "state": node.state,
            "user": node.connection.user,
            "state_dir": node.connection.state_dir,
            "services": [service.name for service in self.inventory.services_on(node.name)],
        }

    def _lacks(self, role: Role, place: Place, context: Context) -> bool:
        owner: Node | Service = self.inventory.nodes[place.node]
        if place.service is not None:
            owner = self.inventory.services[place.service]
        lacking = list(missing(role.variables, context[role.name])) if not place.retired else []
        for name, part in lacking:
            text = part.get("description", "") if isinstance(part, Mapping) else ""
            self.faults.add(
                f"{owner.name} lacks the variable {role.name}.{name}",
                where=owner.where,
                hint=f"{name}: {text}" if text else f"set {name} in the namespace {role.name}",
            )
        return bool(lacking)


class _Table:
    """The resources so far, by id, and their edges."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.after: dict[str, dict[str, None]] = {}
        self.named: list[tuple[str, str, str]] = []
        self.retired: set[str] = set()

    def add(self, made: Sequence[Made], before: tuple[str, ...], place: Place, faults: Faults) -> tuple[str, ...]:
        """Adds a role's resources at a place, after the ids in `before`; what a later role has to wait for.

        What is taken down goes in the opposite order.
        """
        previous = before
        for each in reversed(made) if place.retired else made:
            resource, id = each.resource, each.resource.id
            if id not in self.resources or (id in self.retired and not place.retired):
                self.resources[id] = resource
                self.after[id] = {}
                self.retired.discard(id)
                if place.retired:
                    self.retired.add(id)
            elif not place.retired or id in self.retired:
                self._again(resource, faults)
            else:
                continue
            for end in previous:
                if end != id and not self._reaches(end, id):
                    self.after[id][end] = None
            if not place.retired:
                self.named += [(id, other, resource.where) for other in each.after]
            previous = (id,)
        return previous

    def finish(self, whole: bool) -> tuple[Resource, ...]:
        """The resources with their edges.

        Raises InventoryError for a cycle, and for a named id that nothing declares when the inventory is `whole`.
        """
        faults = Faults()
        for id, other, where in self.named:
            if other in self.resources:
                self.after[id][other] = None
            elif whole:
                faults.add(
                    f"after names {other!r}, which is not declared", where=where, hint=suggest(other, self.resources)
                )
        faults.raise_any()
        try:
            TopologicalSorter(self.after).prepare()
        except CycleError as error:
            cycle = list(reversed(error.args[1]))
            raise InventoryError(
                f"these wait for each other: {' → '.join(cycle)}",
                where=self.resources[cycle[0]].where,
                hint="take one of them out of an after:",
            ) from None
        return tuple(with_after(resource, tuple(self.after[id])) for id, resource in self.resources.items())

    def _again(self, resource: Resource, faults: Faults) -> None:
        """The same thing declared once more: kept once when it is the same, a fault when it is not."""
        first = self.resources[resource.id]
        differ = [
            field.name
            for field in fields(first)
            if field.name not in _EDGES and getattr(first, field.name) != getattr(resource, field.name, None)
        ]
        if type(first) is not type(resource) or differ:
            faults.add(
                f"{resource.id} is declared twice, with different {', '.join(differ) or 'kinds'}",
                where=resource.where,
                hint=f"the first is at {first.where}{_whose(first)}",
            )
            return
        shared = copy.copy(first)
        peers = tuple(dict.fromkeys([*first.peer_nodes, *resource.peer_nodes]))
        object.__setattr__(shared, "peer_nodes", peers if first.service == resource.service else ())
        object.__setattr__(shared, "service", first.service if first.service == resource.service else None)
        self.resources[resource.id] = shared

    def _reaches(self, start: str, goal: str) -> bool:
        """Whether `start` waits, over any number of steps, for `goal`; only a thing declared twice can make it so."""
        open_ids, seen = [start], {start}
        while open_ids:
            for id in self.after.get(open_ids.pop(), ()):
                if id == goal:
                    return True
                if id not in seen:
                    seen.add(id)
                    open_ids.append(id)
        return False


def _places(inventory: Inventory, node: Node) -> Iterator[Place]:
    """Where roles are applied on a node: its node roles, then those of each of its services."""
    gone = node.state == "retired"
    for role in node.roles:
        yield Place(role, node.name, retired=gone)
    for service in inventory.services_on(node.name):
        for role in service.roles[node.name]:
            retired = gone or service.state == "retired"
            yield Place(role, node.name, service.name, service.nodes, retired)


def _precedes(earlier: Place, place: Place, roles: Mapping[str, Role]) -> bool:
    """Whether `place` waits for `earlier`; among what is taken down, it is the other way round."""
    if earlier.retired != place.retired:
        return False
    first, second = (place, earlier) if place.retired else (earlier, place)
    same = first.service is None or second.service is None or first.service == second.service
    return same and first.role in roles[second.role].after


def _in_order(places: Sequence[Place], roles: Mapping[str, Role]) -> Iterable[Place]:
    """The places so that each stands behind those that it waits for; else in the given order."""
    found: dict[Place, None] = {}

    def visit(place: Place) -> None:
        for each in places:
            if each not in found and _precedes(each, place, roles):
                visit(each)
        found[place] = None

    for place in places:
        if place not in found:
            visit(place)
    return found


def _check_order(roles: Mapping[str, Role]) -> None:
    """Raises InventoryError for an unknown role under `after:`, and for roles that wait for each other."""
    faults = Faults()
    for role in roles.values():
        for index, name in enumerate(role.after):
            if name not in roles and role.document is not None:
                faults.add(
                    f"the role {role.name} comes after {name!r}, which is no role",
                    where=role.document.where(("after", index)),
                    hint=suggest(name, roles),
                )
    faults.raise_any()
    try:
        TopologicalSorter({role.name: role.after for role in roles.values()}).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        document = roles[cycle[0]].document
        raise InventoryError(
            f"these roles wait for each other: {' → '.join(cycle)}",
            where=document.where(("after",)) if document else "",
        ) from None


def with_after(resource: Resource, after: tuple[str, ...]) -> Resource:
    """A copy with other edges; the kind's own checks have run already and need not run again."""
    found = copy.copy(resource)
    object.__setattr__(found, "after", after)
    return found


def _whose(resource: Resource) -> str:
    return f", for the service {resource.service}" if resource.service else ""
