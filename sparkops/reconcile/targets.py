"""From the inventory's nodes to the targets that `nodes/` connects to; secrets in them are resolved here, at use."""

from __future__ import annotations

from collections.abc import Mapping

from sparkops.core.secrets import Secret, SecretRef
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.target import Target


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
