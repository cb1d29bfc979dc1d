"""From the inventory's nodes to the targets that `nodes/` connects to, and where nodes find each other.

Secrets in targets are resolved here, at use.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
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
    management = ""
    if target.type == "ssh":
        try:
            management = _ip(SSHConfigs().route(target).end.host)
        except SparkopsError:
            management = _ip(target.address)
    return Address(fabric=_ip(declared.partition("/")[0]), management=management)


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
