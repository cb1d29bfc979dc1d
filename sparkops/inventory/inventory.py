"""The typed inventory: what one file, its roles and its recipes declare, checked and merged.

Plain frozen values. They must not know how the file was read, nor what a role does with its variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from sparkops.core.secrets import SecretRef
from sparkops.core.wording import Message
from sparkops.inventory.declarations import Role, complete
from sparkops.inventory.lockfile import Lock
from sparkops.inventory.merge import Layer, Variables, fold
from sparkops.inventory.recipes import Recipe
from sparkops.models.fabric import plan as fabric_plan
from sparkops.models.parallel import spans_nodes

State = Literal["present", "retired"]
STATE_DIR = "/var/lib/sparkops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach a node. What is None is left to ~/.ssh/config and then to ssh's own defaults.

    `connect_timeout` and `keepalive` are seconds; the passwords are references, read at use.
    """

    type: Literal["ssh", "local"] = "ssh"
    user: str | None = None
    port: int | None = None
    become: bool = False
    host_key: tuple[str, ...] = ()
    identity_file: str | None = None
    proxy_jump: str | None = None
    state_dir: str = STATE_DIR
    ssh_password: SecretRef | str | None = None
    become_password: SecretRef | str | None = None
    connect_timeout: float = 10.0
    keepalive: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine. `roles` are its node roles in order, `groups` the groups that name it, as listed in the file."""

    name: str
    host: str
    connection: Connection
    groups: tuple[str, ...] = ()
    state: State = "present"
    roles: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One model server. `roles` maps each node to its service roles in order.

    `nodes` are all its nodes; `declared_replicas` those of each of its engines, the head first, where it declares them.
    """

    name: str
    nodes: tuple[str, ...]
    declared_replicas: tuple[tuple[str, ...], ...] = ()
    recipe: Recipe | None = None
    state: State = "present"
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """A violation that the user knows and accepts, until the last day `until` (an ISO date, or empty for ever)."""

    id: str
    reason: str
    until: str = ""

    @property
    def words(self) -> str:
        """The reason, with the last day where there is one."""
        return f"{self.reason} (until {self.until})" if self.until else self.reason

    def expired(self, today: date) -> bool:
        """Whether the last day is over."""
        return bool(self.until) and self.until < today.isoformat()


def accepting(entries: Iterable[Accept], today: date, *ids: str) -> Accept | None:
    """The first entry for one of these ids that is valid on that day."""
    return next((each for each in entries if each.id in ids and not each.expired(today)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The sources of variables, apart: those of all, of each group, node, service, and service on a node."""

    defaults: tuple[Layer, ...] = ()
    recipes: Mapping[str, Layer] = field(default_factory=dict)
    top: tuple[Layer, ...] = ()
    groups: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    nodes: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    services: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    per_node: Mapping[tuple[str, str], Layer] = field(default_factory=dict)
    extra: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of an inventory's nodes that a command works on: its number from 1, of how many, and its nodes."""

    number: int
    of: int
    nodes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One cluster. Mappings keep the order of the file. `notices` are things that have to be said.

    `renamed_from` is the name that the cluster had before, "" for none: what nodes recorded under it is this cluster's.
    `shard` is the part of the nodes that is worked on, None for all of them.
    """

    path: Path
    cluster: str
    nodes: Mapping[str, Node]
    services: Mapping[str, Service]
    groups: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, Role] = field(repr=False)
    accept: tuple[Accept, ...] = ()
    renamed_from: str = ""
    notices: tuple[Message, ...] = ()
    sources: Layers = field(repr=False)
    lock: Lock = field(default=Lock(), repr=False)
    shard: Shard | None = None
    _merged: dict[tuple[str, str | None], Mapping[str, object]] = field(
        default_factory=dict, repr=False, compare=False, init=False
    )

    @property
    def folder(self) -> Path:
        """The folder that the inventory stands in: its roles, recipes and templates stand beside it."""
        return self.path.parent

    def layers(self, node: str, service: str | None = None) -> tuple[Layer, ...]:
        """The sources of a node's variables, or of a service's on a node, weakest first."""
        parts = self.sources
        found = list(parts.defaults)
        if service is not None and service in parts.recipes:
            found.append(parts.recipes[service])
        found += parts.top
        for group in self.nodes[node].groups:
            found += parts.groups.get(group, ())
        found += parts.nodes.get(node, ())
        if service is not None:
            found += parts.services.get(service, ())
            if (service, node) in parts.per_node:
                found.append(parts.per_node[service, node])
        return (*found, *parts.extra)

    def variables(self, node: str, service: str | None = None) -> Variables:
        """The merged variables, in a namespace per role; secrets are references. Raises KeyError for unknown names.

        A variable that its role declares and nothing sets is None, or its default where it takes no null.
        """
        key = (node, service)
        if key not in self._merged:
            if service is not None and node not in self.services[service].nodes:
                raise KeyError(f"{service} is not on {node}")
            merged = fold(layer.data for layer in self.layers(node, service))
            spaces = {
                name: complete(role.replaced, complete(role.variables, merged.get(name, {})))
                for name, role in self.roles.items()
            }
            self._merged[key] = self.lock.pinned(spaces) if service is not None else spaces
        return self._merged[key]

    def replicas(self, service: str) -> tuple[tuple[str, ...], ...]:
        """The nodes of each of a service's engines, the head first.

        A service that lists `nodes` is one engine where its arguments make it one (parallel sizes, ranks); else each
        node has an engine of its own.
        """
        declared = self.services[service]
        if declared.declared_replicas:
            return declared.declared_replicas
        serve = self.variables(declared.nodes[0], service).get("service", {}).get("serve") or {}
        if len(declared.nodes) < 2 or spans_nodes(serve):
            return (declared.nodes,)
        return tuple((node,) for node in declared.nodes)

    def replica(self, service: str, node: str) -> tuple[str, ...]:
        """The nodes of the engine that a node is part of, the head first."""
        return next(each for each in self.replicas(service) if node in each)

    def addresses(self, service: str, node: str) -> list[str | None]:
        """The fabric addresses of the nodes of a node's engine, the head first; None for one that has none."""
        return [self.fabric_address(each) for each in self.replica(service, node)]

    def fabric_address(self, node: str) -> str | None:
        """Where the other nodes reach this one over the fabric, by `fabric.address` or the plan of its topology."""
        return fabric_plan.address_of(node, _Fabrics(self))

    def services_on(self, node: str) -> tuple[Service, ...]:
        """The services that name a node, in the order of the file."""
        return tuple(service for service in self.services.values() if node in service.nodes)


class _Fabrics(Mapping[str, Mapping[str, object]]):
    """What the fabric's plan needs of each node, made when it is asked for."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def __getitem__(self, node: str) -> Mapping[str, object]:
        return {"fabric": self._inventory.variables(node).get("fabric"), "state": self._inventory.nodes[node].state}

    def __iter__(self) -> Iterator[str]:
        return iter(self._inventory.nodes)

    def __len__(self) -> int:
        return len(self._inventory.nodes)


def ordered(names: Iterable[str], order: Iterable[str]) -> tuple[str, ...]:
    """`names` without repetition, in the given order."""
    wanted = set(names)
    return tuple(name for name in order if name in wanted)
