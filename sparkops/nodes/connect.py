"""The door: a way to a node, whatever sort it is, and the worker on it.

paramiko is imported only where SSH is really used.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sparkops.nodes import boot
from sparkops.nodes.local import LocalTransport
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.nodes.transport import Stream, Transport

if TYPE_CHECKING:
    from sparkops.nodes.ssh.client import SSH
    from sparkops.nodes.ssh.host_keys import HostKey, Known


class Connections:
    """The ways to many nodes. They share what is costly or must be asked once: configuration files, keys, the agent,
    known hosts, passwords, and the connections to jump hosts. Any thread may use it."""

    def __init__(self, passwords: Passwords) -> None:
        self.passwords = passwords
        self._ssh: SSH | None = None
        self._lock = threading.Lock()

    def connect(self, target: Target) -> Transport:
        """A way to `target`. Raises InventoryError, ConnectionFailed, HostKeyError, AuthenticationFailed."""
        if target.type == "local":
            return LocalTransport(target.name)
        return self._of_ssh().connect(target)

    def start_worker(self, transport: Transport, target: Target, program: bytes) -> Stream:
        """`program` running on the node by its Python, as root where the target says `become`.

        A declared or already asked sudo password is used at once; without one sudo is tried without, and a person is
        asked only where sudo says that it needs one. Raises BecomeFailed, WorkerFailed, ConnectionFailed.
        """
        become = target.become and not transport.root
        if not become or self.passwords.known("sudo", target) is None:
            try:
                return boot.start(transport, target.name, program, become=become)
            except boot.PasswordNeeded:
                if not self.passwords.can_ask:
                    raise
        with self.passwords.attempt("sudo", target) as secret:
            return boot.start(transport, target.name, program, become=True, password=secret)

    def scan(self, target: Target) -> list[HostKey]:
        """The host keys that a node shows now, without trust in any (jump hosts on the way are checked)."""
        return self._of_ssh().scan(target)

    def known_as(self, target: Target) -> str:
        """The name of a node in known_hosts, as `hostkeys.add` takes it."""
        return self._of_ssh().known_as(target)

    def known(self, target: Target) -> Known:
        """Which keys a node may show: those that are pinned, else those of known_hosts; and the revoked ones."""
        return self._of_ssh().known(target)

    def _of_ssh(self) -> SSH:
        with self._lock:
            if self._ssh is None:
                from sparkops.nodes.ssh.client import SSH

                self._ssh = SSH(self.passwords)
            return self._ssh
