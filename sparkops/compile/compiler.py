"""From an inventory to the resources of each node, with their order: offline, pure but for secrets that are used.

Within a role at one place each resource comes after the one before it. The first resource of a role comes after the
last one of each role in its `after:`, on the same node and for the same service. It must not know how a resource is
observed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sparkops.compile.expressions import Context
from sparkops.compile.role_compiler import Declared, RoleCompiler, RoleTarget
from sparkops.compile.secret_placeholders import SecretPlaceholders
from sparkops.core import fact_text
from sparkops.core.errors import InventoryError
from sparkops.core.graph import Cycle, ordered, reachable
from sparkops.core.messages import Fields
from sparkops.core.secrets import Content
from sparkops.inventory.declarations import Role
from sparkops.inventory.faults import Faults, suggest
from sparkops.inventory.inventory import Inventory, Node, Service
from sparkops.inventory.limit import select
from sparkops.inventory.secrets import Masked, Secrets
from sparkops.inventory.validate import missing
from sparkops.resources.resource import Resource

ENGINE_ROLES = ("service", "checkpoint")
"""The roles by whose variables an engine is started; an image is known by its content alone."""
_EDGES = frozenset({"after", "role", "service", "peer_nodes", "engine_nodes", "where"})
"""What two declarations of the same thing may differ in."""
SPECS = "/etc/sparkops/services/"
"""Where the role `service` puts the specs of services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """All resources, node by node and role by role.

    `whole` are all nodes of the inventory (of its shard, where it has one); none where something of it was left out.
    """

    resources: tuple[Resource, ...]
    nodes: tuple[str, ...]
    whole: tuple[str, ...]

    def of(self, node: str, service: str | None = None) -> tuple[Resource, ...]:
        """The resources of one node, or those of a service on it."""
        return tuple(each for each in self.resources if each.node == node and service in (None, each.service))


def compile_inventory(
    inventory: Inventory,
    *,
    limit: Sequence[str] | str | None = None,
    roles: Sequence[str] | None = None,
    secrets: Secrets | Masked | None = None,
) -> Compiled:
    """The resources that an inventory declares, of the nodes in `limit` and the named roles.

    Without `secrets` none is read: each is `***`, for what works offline. Raises InventoryError with every fault of
    roles and their use, SecretError for a secret that can't be read.
    """
    for name in roles or ():
        if name not in inventory.roles:
            raise InventoryError.of("role-not-found", name=name, suggestion=suggest(name, inventory.roles))
    _check_order(inventory.roles)
    nodes = select(inventory, limit)
    compiler = _Compiler(inventory, (secrets or Masked()).resolve)
    for node in nodes:
        compiler.add(list(_targets(inventory, inventory.nodes[node])), roles)
    shard = inventory.shard
    whole = roles is None and len(nodes) == len(inventory.nodes if shard is None else shard.nodes)
    outside = frozenset(inventory.nodes) - shard.nodes if shard is not None else frozenset()
    return Compiled(
        resources=compiler.finish(whole, outside),
        nodes=tuple(nodes),
        whole=tuple(nodes) if whole else (),
    )


def spec_of(resource: Resource) -> Fields | None:
    """The launcher's spec that a resource puts on its node, if it is one; facts that it waits for as words."""
    content = getattr(resource, "content", None)
    if not isinstance(content, Content) or not resource.name.startswith(SPECS) or not resource.name.endswith(".json"):
        return None
    spec = json.loads(fact_text.shown(str(content.text)))
    assert isinstance(spec, dict)
    return spec


class _Compiler:
    """The resources so far, by id, with their edges; and what their roles see."""

    def __init__(self, inventory: Inventory, resolve: Any) -> None:
        self.inventory = inventory
        self.placeholders = SecretPlaceholders(resolve)
        self.roles = RoleCompiler(self.placeholders, inventory.folder)
        self.faults = Faults()
        self.nodes = {name: self._node(node) for name, node in inventory.nodes.items()}
        self.resources: dict[str, Resource] = {}
        self.after: dict[str, dict[str, None]] = {}
        self.named: list[tuple[str, str, str]] = []
        self.retired: set[str] = set()

    def add(self, targets: Sequence[RoleTarget], wanted: Sequence[str] | None) -> None:
        """The resources of one node's roles."""
        contexts: dict[tuple[str | None, bool], Context] = {}
        ends: dict[RoleTarget, tuple[str, ...]] = {}
        roles = self.inventory.roles
        after = {each: [other for other in targets if _precedes(other, each, roles)] for each in targets}
        for target in ordered(after):
            made = self._make(target, contexts) if wanted is None or target.role in wanted else []
            before = dict.fromkeys(end for earlier in after[target] for end in ends[earlier])
            ends[target] = self._enter(made, tuple(before), target)

    def _make(self, target: RoleTarget, contexts: dict[tuple[str | None, bool], Context]) -> list[Declared]:
        """The resources of a role; what its expressions see is made once for all roles of a node, or of a service on
        it, and kept in `contexts`."""
        role = self.inventory.roles[target.role]
        try:
            seen = target.service, target.retired
            context = contexts[seen] = contexts.get(seen) or self._context(target)
            if self._lacks(role, target, context):
                return []
            return self.roles.make(role, target, context)
        except InventoryError as error:
            if not role.own:  # what comes with sparkops nobody can correct, but what was declared
                where = self._owner(target).where
                error = InventoryError.joined([each.at(where) for each in (error, *error.others)])
            self.faults.take(error)
            return []

    def _owner(self, target: RoleTarget) -> Node | Service:
        """Whose declaration a role is compiled for."""
        if target.service is None:
            return self.inventory.nodes[target.node]
        return self.inventory.services[target.service]

    def _context(self, target: RoleTarget) -> Context:
        """What expressions see: a namespace per role, and `node`, `nodes`, `cluster`, `folder`."""
        spaces = dict(self.placeholders.seal(self.inventory.variables(target.node, target.service)))
        if target.service is not None:
            service = self.inventory.services[target.service]
            replica = self.inventory.replica(service.name, target.node)
            spaces["service"] = {
                **spaces["service"],
                "name": service.name,
                "nodes": list(replica),
                "addresses": self.inventory.addresses(service.name, target.node),
                "rank": replica.index(target.node),
                "fabric": spaces.get("fabric"),
                "ranks": self._ranks(service.name, replica),
                "recipe": service.recipe.name if service.recipe else None,
                "state": "retired" if target.retired else service.state,
            }
        return {
            **spaces,
            "node": self.nodes[target.node],
            "nodes": self.nodes,
            "cluster": self.inventory.cluster,
            "folder": str(self.inventory.folder),
        }

    def _ranks(self, service: str, replica: Sequence[str]) -> list[Any]:
        """What is declared for each rank of an engine with several."""
        ranks = [self.inventory.variables(node, service) for node in replica] if len(replica) > 1 else []
        return [self.placeholders.seal({name: each[name] for name in ENGINE_ROLES if name in each}) for each in ranks]

    def _node(self, node: Node) -> Mapping[str, object]:
        """A node as expressions of any node see it: who it is, and its variables."""
        variables = self.placeholders.seal(self.inventory.variables(node.name))
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

    def _lacks(self, role: Role, target: RoleTarget, context: Context) -> bool:
        owner = self._owner(target)
        lacking = list(missing(role.variables, context[role.name])) if not target.retired else []
        for name, part in lacking:
            self.faults.add(
                "role-variable-missing",
                where=owner.where,
                owner=owner.name,
                variable=f"{role.name}.{name}",
                description=part.get("description") if isinstance(part, Mapping) else None,
            )
        return bool(lacking)

    def _enter(self, made: Sequence[Declared], before: tuple[str, ...], target: RoleTarget) -> tuple[str, ...]:
        """Adds a role's resources at a target, after the ids in `before`; what a later role has to wait for.

        What is taken down goes in the opposite order.
        """
        previous = before
        for each in reversed(made) if target.retired else made:
            resource, named = each
            id = resource.id
            if id not in self.resources or (id in self.retired and not target.retired):
                self.resources[id] = resource
                self.after[id] = {}
                self.retired.discard(id)
                if target.retired:
                    self.retired.add(id)
            elif not target.retired or id in self.retired:
                self._again(resource)
            else:
                continue
            for end in previous:
                if end != id and id not in reachable(self.after, end):
                    self.after[id][end] = None
            if not target.retired:
                self.named += [(id, other, resource.where) for other in named]
            previous = (id,)
        return previous

    def finish(self, whole: bool, outside: Collection[str]) -> tuple[Resource, ...]:
        """The resources with their edges.

        Raises InventoryError for what was found so far, for a cycle, for a named id on a node `outside` the shard, and
        when all is `whole` for one that nothing declares.
        """
        self.faults.raise_any()
        for id, other, where in self.named:
            if other in self.resources:
                self.after[id][other] = None
            elif other.rpartition(" @")[2] in outside:
                self.faults.add("after-in-other-shard", where=where, name=other)
            elif whole:
                close = suggest(other, self.resources)
                self.faults.add("after-not-declared", where=where, name=other, suggestion=close)
        self.faults.raise_any()
        try:
            ordered(self.after)
        except Cycle as error:
            where = self.resources[str(error.members[0])].where
            raise InventoryError.of("resource-order-cycle", where=where, reason=str(error)) from None
        return tuple(replace(resource, after=tuple(self.after[id])) for id, resource in self.resources.items())

    def _again(self, resource: Resource) -> None:
        """The same thing declared once more: kept once when it is the same, a fault when it is not."""
        first = self.resources[resource.id]
        differ = [
            field.name
            for field in fields(first)
            if field.name not in _EDGES and getattr(first, field.name) != getattr(resource, field.name, None)
        ]
        if type(first) is not type(resource) or differ:
            self.faults.add(
                "resource-declared-twice",
                where=resource.where,
                resource=resource.id,
                differing=", ".join(differ) or "kinds",
                first=first.where,
                service=first.service,
            )
            return
        peers = tuple(dict.fromkeys([*first.peer_nodes, *resource.peer_nodes]))
        same = first.service == resource.service
        self.resources[resource.id] = replace(
            first,
            peer_nodes=peers if same else (),
            engine_nodes=first.engine_nodes if same else (),
            service=first.service if same else None,
        )


def _targets(inventory: Inventory, node: Node) -> Iterator[RoleTarget]:
    """Where roles are applied on a node: its node roles, then those of each of its services."""
    gone = node.state == "retired"
    for role in node.roles:
        yield RoleTarget(role, node.name, retired=gone)
    for service in inventory.services_on(node.name):
        for role in service.roles[node.name]:
            retired = gone or service.state == "retired"
            yield RoleTarget(
                role, node.name, service.name, service.nodes, inventory.replica(service.name, node.name), retired
            )


def _precedes(earlier: RoleTarget, target: RoleTarget, roles: Mapping[str, Role]) -> bool:
    """Whether `target` waits for `earlier`; among what is taken down, it is the other way round."""
    if earlier.retired != target.retired:
        return False
    first, second = (target, earlier) if target.retired else (earlier, target)
    same = first.service is None or second.service is None or first.service == second.service
    return same and first.role in roles[second.role].after


def _check_order(roles: Mapping[str, Role]) -> None:
    """Raises InventoryError for an unknown role under `after:`, and for roles that wait for each other."""
    faults = Faults()
    for role in roles.values():
        for index, name in enumerate(role.after):
            if name not in roles and role.document is not None:
                faults.add(
                    "role-after-unknown",
                    where=role.document.where(("after", index)),
                    role=role.name,
                    name=name,
                    suggestion=suggest(name, roles),
                )
    faults.raise_any()
    try:
        ordered({role.name: role.after for role in roles.values()})
    except Cycle as error:
        document = roles[str(error.members[0])].document
        where = document.where(("after",)) if document else ""
        raise InventoryError.of("role-order-cycle", where=where, reason=str(error)) from None
