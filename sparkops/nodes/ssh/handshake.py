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
        where, place = self._node, self._place
        if isinstance(error, socket.gaierror):
            return ConnectionFailed.of("address-unresolved", where=where, host=self._hop.host, error=error.strerror)
        if isinstance(error, paramiko.ChannelException):
            return ConnectionFailed.of("jump-host-cannot-connect", where=where, place=place, error=error.text)
        if isinstance(error, TimeoutError) or "Timeout" in str(error):
            return ConnectionFailed.of("connect-timeout", where=where, place=place, seconds=self._hop.timeout)
        if isinstance(error, ConnectionRefusedError):
            return ConnectionFailed.of("connection-refused", where=where, place=place)
        if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
            return ConnectionFailed.of("no-route", where=where, place=place)
        return ConnectionFailed.of("unreachable", where=where, place=place, error=str(error))

    def _silent(self, error: Exception | None) -> ConnectionFailed:
        where, place = self._node, self._place
        words = self._proxied.words() if self._proxied is not None else ""
        if words:
            command = self._hop.proxy_command
            return ConnectionFailed.of("proxy-command-failed", where=where, error=words, command=command)
        if time.monotonic() >= self._deadline - 0.05:
            return ConnectionFailed.of("ssh-no-answer", where=where, place=place, seconds=self._hop.timeout)
        reason = str(error or "no reason given")
        return ConnectionFailed.of("ssh-closed-before-login", where=where, place=place, error=reason)
