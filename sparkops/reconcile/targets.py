"""From the inventory's nodes to the targets that `nodes/` connects to; secrets in them are resolved here, at use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sparkops.core.secrets import Secret, SecretRef
from sparkops.inventory.model import Inventory
from sparkops.inventory.secrets import resolve
from sparkops.nodes.target import Target


def targets(inventory: Inventory) -> Mapping[str, Target]:
    """Every node of the inventory as a Target. Raises SecretError for a declared password that can't be read.

    `SPARKOPS_SSH_CONFIG` replaces the user's SSH configuration, as `ssh -F` does.
    """
    config = os.environ.get("SPARKOPS_SSH_CONFIG")
    found = {}
    for node in inventory.nodes.values():
        way = node.connection
        found[node.name] = Target(
            name=node.name,
            host=node.host,
            port=way.port,
            user=way.user,
            type=way.type,
            host_key=way.host_key,
            identity_file=way.identity_file,
            proxy_jump=way.proxy_jump,
            become=way.become,
            ssh_password=_secret(way.ssh_password),
            become_password=_secret(way.become_password),
            connect_timeout=way.connect_timeout,
            keepalive=way.keepalive,
            state_dir=way.state_dir,
            ssh_config=Path(config) if config else None,
            known_hosts=inventory.path.parent / "known_hosts",
        )
    return found


def _secret(value: Secret | SecretRef | None) -> Secret | None:
    return resolve(value) if isinstance(value, SecretRef) else value
