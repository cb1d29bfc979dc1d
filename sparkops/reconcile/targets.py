"""From the inventory's nodes to the targets that `nodes/` connects to, and where nodes and clients find what is there.

Secrets in targets are resolved here, at use. Nobody is asked but name servers.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.deadline import within
from sparkops.core.errors import SparkopsError
from sparkops.core.secrets import Secret, SecretRef
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.target import Target

RESOLVING = 5.0
"""Seconds to look a name up."""
EVERYWHERE = ("0.0.0.0", "::", "")
NEAR = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where others reach a node: IP addresses. `fabric` is declared, `management` that of SSH; either may be empty."""

    fabric: str = ""
    management: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """The best one first."""
        return tuple(dict.fromkeys(each for each in (self.fabric, self.management) if each))


def address(inventory: Inventory, target: Target) -> Address:
    """Where other nodes find this one. A name is looked up from here."""
    declared = inventory.fabric_address(target.name) or ""
    management = _ip(_reached_at(target, SSHConfigs())) if target.type == "ssh" else ""
    return Address(fabric=_ip(declared.partition("/")[0]), management=management)


def _reached_at(target: Target, configs: SSHConfigs) -> str:
    """Where others than SSH reach a node: an alias of SSH's configuration means nothing to them."""
    if target.type == "local":
        return "localhost"
    try:
        return configs.route(target).end.host
    except SparkopsError:
        return target.address


def _ip(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        found = within(RESOLVING, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)) if host else []
        return str(found[0][4][0]) if found else ""
    except OSError:
        return ""


def targets(inventory: Inventory, secrets: Secrets) -> Mapping[str, Target]:
    """Every node of the inventory as a Target. Raises SecretError for a declared password that can't be read."""
    found = {}
    for node in inventory.nodes.values():
        way = node.connection
        found[node.name] = Target(
            name=node.name,
            host=node.host,
            port=way.port,
            user=way.user,
            type=way.type,
            host_keys=way.host_key,
            identity_file=way.identity_file,
            proxy_jump=way.proxy_jump,
            become=way.become,
            ssh_password=_secret(way.ssh_password, secrets),
            become_password=_secret(way.become_password, secrets),
            connect_timeout=way.connect_timeout,
            keepalive=way.keepalive,
            state_dir=way.state_dir,
            known_hosts=inventory.folder / "known_hosts",
        )
    return found


def _secret(value: SecretRef | str | None, secrets: Secrets) -> Secret | None:
    if isinstance(value, str):
        return Secret(value, "the inventory")
    return secrets.resolve(value) if value is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One engine of a service, at its head `node`. `name` is SERVICE, or SERVICE @HEAD where it has several engines.

    `near`: only processes of the node itself reach it.
    """

    name: str
    service: str
    node: str
    host: str
    port: int
    near: bool = False

    @property
    def place(self) -> str:
        """`HOST:PORT`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the OpenAI-compatible interface."""
        return f"http://{self.place}/v1"


def endpoints(inventory: Inventory, nodes: Sequence[str]) -> Iterator[Endpoint]:
    """Each engine with a port whose head is one of these nodes, in the inventory's order."""
    configs = SSHConfigs()
    for service in inventory.services.values():
        replicas = inventory.replicas(service.name) if service.state != "retired" else ()
        for head in (each[0] for each in replicas if each[0] in nodes):
            declared = inventory.variables(head, service.name).get("service", {})
            port, listening = declared.get("port"), declared.get("host") or ""
            if isinstance(port, int):
                node = inventory.nodes[head]
                target = Target(name=node.name, host=node.host, type=node.connection.type)
                yield Endpoint(
                    name=service.name if len(replicas) == 1 else f"{service.name} @{head}",
                    service=service.name,
                    node=head,
                    host=_reached_at(target, configs) if listening in EVERYWHERE else listening,
                    port=port,
                    near=listening in NEAR and node.connection.type != "local",
                )


def urls(inventory: Inventory, nodes: Sequence[str]) -> Mapping[str, str]:
    """The URL of each of them by its name."""
    return {each.name: each.url for each in endpoints(inventory, nodes)}
