"""Where a node is and how to get in, as the inventory declares it; what it leaves open, `~/.ssh/config` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sparkops.core.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One node to connect to. `None` means: not declared.

    `name` is the inventory's name, used in messages; `host` an address, a DNS name or an alias of `~/.ssh/config`.
    `host_keys` pins the node's keys, each in one line, `ssh-ed25519 AAAA…`; any of them is right. `proxy_jump` is
    written as in `ssh -J`. `ssh_config` replaces the user's and the system's configuration of SSH; `known_hosts` is
    the project's file, read before the user's. `connect_timeout` (seconds) limits the way to an encrypted connection;
    a node silent for three times `keepalive` (seconds) counts as lost. `state_dir` is where the worker keeps what it
    must remember.
    """

    name: str
    host: str = ""
    port: int | None = None
    user: str | None = None
    type: Literal["ssh", "local"] = "ssh"
    host_keys: tuple[str, ...] = ()
    identity_file: str | None = None
    proxy_jump: str | None = None
    become: bool = False
    ssh_password: Secret | None = None
    become_password: Secret | None = None
    connect_timeout: float | None = None
    keepalive: float = 15.0
    state_dir: str = "/var/lib/sparkops"
    ssh_config: Path | None = None
    known_hosts: Path | None = None

    @property
    def address(self) -> str:
        """What is looked up in SSH's configuration: the host, or the name where no host is declared."""
        return self.host or self.name
