"""The way to one machine up to an encrypted connection: reach it, agree on algorithms, take its host key.

Whether the key is the right one, and the login, are decided elsewhere.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Sequence

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from sparkops.core.errors import ConnectionFailed
from sparkops.nodes.ssh.config import Hop
from sparkops.nodes.ssh.host_keys import HostKey
from sparkops.nodes.ssh.wire import Proxied, Wire, dial

ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""A key's type in known_hosts to the signature algorithms that prove it, where they differ."""
FAMILIES = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("ssh-rsa",),
)
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
DIGESTS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)


class Handshake:
    """One attempt. `through` is the connection to the machine before; `scope` is "" for the node itself."""

    def __init__(self, hop: Hop, node: str, through: paramiko.Transport | None, scope: str) -> None:
        self._hop = hop
        self._node = node
        self._deadline = time.monotonic() + hop.timeout
        self._place = f"the jump host {hop.host}:{hop.port}" if scope else f"{hop.host}:{hop.port}"
        self._proxied: Proxied | None = None
        self.wire = self._reach(through)
        self.transport = paramiko.Transport(self.wire)  # type: ignore[arg-type]

    def run(self, types: Sequence[str]) -> HostKey:
        """Agree with the machine; returns the key it has proven to hold, of one of `types` where any are given.

        Raises ConnectionFailed, and paramiko.IncompatiblePeer where no algorithm is common.
        """
        self._choose(types)
        done = threading.Event()
        left = max(0.1, self._deadline - time.monotonic())
        self.transport.banner_timeout = left
        self.transport.handshake_timeout = left
        self.transport.start_client(event=done)
        done.wait(left)
        if not (done.is_set() and self.transport.is_active()):
            error = self.transport.get_exception()
            if isinstance(error, IncompatiblePeer):
                raise error
            raise self._silent(error)
        return HostKey(self.transport.get_remote_server_key().asbytes(), f"shown by {self._place}")

    def close(self) -> None:
        """Give it up."""
        self.transport.close()
        self.wire.close()

    def _choose(self, types: Sequence[str]) -> None:
        options = self.transport.get_security_options()
        options.ciphers = [each for each in CIPHERS if each in options.ciphers]
        options.digests = [each for each in DIGESTS if each in options.digests]
        wanted = [each for type in types for each in ALGORITHMS.get(type, (type,))]
        able = [each for each in wanted if each in options.key_types]
        if able:
            options.key_types = able

    def _reach(self, through: paramiko.Transport | None) -> Wire:
        hop = self._hop
        try:
            if through is not None:
                left = max(0.1, self._deadline - time.monotonic())
                address = (hop.host, hop.port)
                return Wire(through.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=left))
            if hop.proxy:
                self._proxied = Proxied(hop.proxy_command, self._node)
                return self._proxied.wire
            return dial(hop.host, hop.port, self._deadline)
        except (OSError, paramiko.SSHException, EOFError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ConnectionFailed:
        hint = "see whether it is switched on and on this network, and check `host` and `port`"
        what = f"{self._place} can't be reached: {error}"
        if isinstance(error, socket.gaierror):
            what = f"the name {self._hop.host} is not known ({error.strerror})"
            hint = "correct `host` in the inventory, or HostName in ~/.ssh/config"
        elif isinstance(error, paramiko.ChannelException):
            what = f"the jump host can't reach {self._place}: {error.text}"
        elif isinstance(error, TimeoutError) or "Timeout" in str(error):
            what = f"{self._place} does not answer within {self._hop.timeout:g} s"
        elif isinstance(error, ConnectionRefusedError):
            what = f"{self._place} refuses connections"
            hint = "see whether sshd runs there, and on this port"
        elif isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            what = f"there is no route to {self._place}"
        return ConnectionFailed(what, where=self._node, hint=hint)

    def _silent(self, error: Exception | None) -> ConnectionFailed:
        words = self._proxied.words() if self._proxied is not None else ""
        if words:
            return ConnectionFailed(
                f"ProxyCommand failed: {words}", where=self._node, hint=f"try by hand: {self._hop.proxy_command}"
            )
        if time.monotonic() >= self._deadline - 0.05:
            return ConnectionFailed(
                f"{self._place} takes connections, but its SSH does not answer within {self._hop.timeout:g} s",
                where=self._node,
                hint="the machine may be frozen or out of memory: look at its console",
            )
        return ConnectionFailed(
            f"{self._place} closed the connection before a login ({error or 'no reason given'})",
            where=self._node,
            hint="its sshd may be starting, overloaded (MaxStartups) or keep this address out (fail2ban, firewall)",
        )
