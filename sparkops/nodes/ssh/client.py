"""Nodes behind SSH: the route to one, hop by hop, each with its host key checked, and programs on it.

Every stage has its limit in time, and a connection that falls silent later ends by itself (see Wire). Nothing here
knows sudo or the worker.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from sparkops.nodes.ssh import paramiko_import  # noqa: F401 - before paramiko

# isort: split
import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from sparkops.core.deadline import within
from sparkops.core.errors import ConnectionFailed, HostKeyError, SparkopsError
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.ssh import host_keys
from sparkops.nodes.ssh.config import Hop, SSHConfigs
from sparkops.nodes.ssh.handshake import FAMILIES, Handshake
from sparkops.nodes.ssh.host_keys import HostKey, Known, KnownHosts
from sparkops.nodes.ssh.identities import Keyring
from sparkops.nodes.ssh.login import Login
from sparkops.nodes.ssh.wire import Wire
from sparkops.nodes.target import Target
from sparkops.nodes.transport import STDERR_KEPT, harmless

SILENT_INTERVALS = 3
"""After how many keep-alive intervals of silence a node is lost: the first one is idle, then it owes an answer."""
GLANCE = 1.0
"""Seconds between two looks at standard error while nothing else comes."""
PIECE = 32768


@dataclass(slots=True)
class Link:
    """An open, logged-in connection to one machine, and the one that it goes through."""

    transport: paramiko.Transport
    wire: Wire
    hop: Hop


@dataclass(slots=True)
class _Shared:
    """A jump host's link, in the making or made; how many go through it, and what it goes through itself."""

    hops: tuple[Hop, ...]
    link: Future[Link] = field(default_factory=Future)
    users: int = 0
    below: _Shared | None = None

    @property
    def broken(self) -> bool:
        """Failed, or made and dead since."""
        if not self.link.done():
            return False
        return self.link.exception() is not None or not self.link.result().transport.is_active()


class SSH:
    """What the connections of one run share. Any thread may use it."""

    def __init__(self, passwords: Passwords) -> None:
        self._passwords = passwords
        self._configs = SSHConfigs()
        self._keyring = Keyring(passwords)
        self._lock = threading.Lock()
        self._files: dict[tuple[Path, ...], KnownHosts] = {}
        self._hops: dict[tuple[Hop, ...], _Shared] = {}
        logger = logging.getLogger("paramiko")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())

    def connect(self, target: Target) -> SSHTransport:
        """See Connections.connect."""
        hops = self._configs.route(target).hops
        below = self._take(hops[:-1], target)
        try:
            link = self._enter(hops[-1], target, below, "")
        except BaseException:
            self._give_back(below)
            raise
        _watch(link, target.keepalive)
        return SSHTransport(target.name, link, lambda: self._give_back(below))

    def scan(self, target: Target) -> list[HostKey]:
        """See Connections.scan."""
        hops = self._configs.route(target).hops
        below = self._take(hops[:-1], target)
        found: list[HostKey] = []
        try:
            for family in FAMILIES:
                handshake = Handshake(hops[-1], target.name, _through(below), "")
                try:
                    found.append(handshake.run(family))
                except IncompatiblePeer:
                    continue
                finally:
                    handshake.close()
        finally:
            self._give_back(below)
        return found

    def known_as(self, target: Target) -> str:
        """See Connections.known_as."""
        return _name(self._configs.route(target).end)

    def known(self, target: Target) -> Known:
        """See Connections.known."""
        return self._known(self._configs.route(target).end, target, "")

    def _enter(self, hop: Hop, target: Target, below: _Shared | None, scope: str) -> Link:
        known = self._known(hop, target, scope)
        handshake = Handshake(hop, target.name, _through(below), scope)
        try:
            try:
                shown = handshake.run(known.types)
            except IncompatiblePeer as error:
                raise _incompatible(error, known, hop, target) from None
            host_keys.check(shown, known, node=target.name, host=_name(hop), hop=bool(scope))
            Login(handshake.transport, hop, target, scope).run(self._keyring, self._passwords)
        except BaseException:
            handshake.close()
            raise
        return Link(handshake.transport, handshake.wire, hop)

    def _known(self, hop: Hop, target: Target, scope: str) -> Known:
        with self._lock:
            if hop.known_hosts not in self._files:
                self._files[hop.known_hosts] = KnownHosts(hop.known_hosts)
            known = self._files[hop.known_hosts].known(_name(hop))
        if target.host_keys and not scope:
            pins = tuple(host_keys.pinned(line, target.name) for line in target.host_keys)
            return Known(keys=pins, revoked=known.revoked)
        return known

    def _take(self, hops: tuple[Hop, ...], target: Target) -> _Shared | None:
        """The link to the last of `hops`, shared; whoever comes first makes it, the others get the same outcome."""
        if not hops:
            return None
        with self._lock:
            shared = self._hops.get(hops)
            first = shared is None or shared.broken
            if shared is None or first:
                shared = self._hops[hops] = _Shared(hops)
            shared.users += 1
        if first:
            self._make(shared, target)
        try:
            shared.link.result()
        except SparkopsError as error:
            self._give_back(shared)
            raise error.at(target.name) from None
        return shared

    def _make(self, shared: _Shared, target: Target) -> None:
        try:
            shared.below = self._take(shared.hops[:-1], target)
            hop = shared.hops[-1]
            link = self._enter(hop, target, shared.below, hop.place)
            _watch(link, target.keepalive)
            shared.link.set_result(link)
        except BaseException as error:
            shared.link.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _give_back(self, shared: _Shared | None) -> None:
        """One user less; the last one closes it."""
        if shared is None:
            return
        with self._lock:
            shared.users -= 1
            if shared.users:
                return
            if self._hops.get(shared.hops) is shared:
                del self._hops[shared.hops]
        if shared.link.exception() is None:
            shared.link.result().transport.close()
        self._give_back(shared.below)


def _through(shared: _Shared | None) -> paramiko.Transport | None:
    return None if shared is None else shared.link.result().transport


def _name(hop: Hop) -> str:
    return hop.key_name.lower() or host_keys.host_name(hop.host, hop.port)


def _incompatible(error: IncompatiblePeer, known: Known, hop: Hop, target: Target) -> HostKeyError:
    if known.keys and "host key" in str(error):
        return host_keys.changed(known.keys[0], None, node=target.name, place=_name(hop))
    return HostKeyError.of("ssh-no-common-algorithm", where=target.name, place=hop.place, error=str(error))


def _watch(link: Link, keepalive: float) -> None:
    """Ask for a sign of life after `keepalive` seconds of idleness, and count the connection as lost without one."""
    link.wire.patience = (SILENT_INTERVALS - 1) * keepalive

    def ask() -> None:
        message = paramiko.Message()
        message.add_byte(bytes([80]))  # SSH_MSG_GLOBAL_REQUEST, RFC 4254 section 4
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        link.wire.question()
        link.transport.packetizer.send_message(message)

    link.transport.packetizer.set_keepalive(keepalive, ask)


class SSHTransport:
    """A way to one node. See Transport."""

    def __init__(self, node: str, link: Link, give_back: Callable[[], None]) -> None:
        self._node = node
        self._link = link
        self._give_back = give_back
        self._closed = False

    @property
    def root(self) -> bool:
        return self._link.hop.user == "root"

    def execute(self, argv: Sequence[str]) -> SSHStream:
        try:
            channel = self._link.transport.open_session(timeout=self._link.hop.timeout)
            within(self._link.hop.timeout, lambda: channel.exec_command(shlex.join(argv)))
        except (paramiko.SSHException, OSError, EOFError) as error:
            reason = self._link.wire.lost or str(error) or "the connection broke"
            raise ConnectionFailed.of("ssh-session-refused", where=self._node, error=reason) from None
        return SSHStream(self._node, self._link, channel)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.transport.close()
            self._give_back()


class SSHStream:
    """One program on a node, over a channel of its own. See Stream."""

    def __init__(self, node: str, link: Link, channel: paramiko.Channel) -> None:
        self._node = node
        self._link = link
        self._channel = channel
        self._said = b""
        self._saying = threading.Lock()
        self._ours = False
        self._glance = GLANCE
        channel.settimeout(GLANCE)

    def read(self, size: int, timeout: float | None = None) -> bytes:
        self._look_every(GLANCE if timeout is None else min(timeout, GLANCE))
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                data = self._channel.recv(size)
            except TimeoutError:
                self._hear()
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                continue
            if not data and not self._ours:
                self._ended()
            return data

    def _look_every(self, seconds: float) -> None:
        if seconds != self._glance:
            self._glance = seconds
            self._channel.settimeout(seconds)

    def _ended(self) -> None:
        """Its output is over: let the exit status and the last words come in, or say that the node was lost.

        A server says EOF before it closes a channel; a broken connection closes it without.
        """
        if not self._channel.eof_received:
            raise self._lost()
        self._channel.status_event.wait(GLANCE)
        self._hear()

    def _lost(self) -> ConnectionFailed:
        reason = self._link.wire.lost or "the node closed it"
        return ConnectionFailed.of("connection-lost", where=self._node, error=reason)

    def write(self, data: bytes) -> None:
        start = 0
        try:
            while start < len(data):
                try:
                    start += self._channel.send(data[start : start + PIECE])
                except TimeoutError:
                    continue
        except (OSError, EOFError, paramiko.SSHException):
            if self._link.wire.lost or not self._link.transport.is_active():
                raise self._lost() from None
            raise ConnectionFailed.of("remote-program-ended", where=self._node) from None

    def close_input(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def close(self) -> None:
        self._ours = True
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _hear(self) -> None:
        with self._saying:
            while self._channel.recv_stderr_ready():
                self._said = (self._said + self._channel.recv_stderr(65536))[-STDERR_KEPT:]

    def stderr(self) -> str:
        self._hear()
        return harmless(self._said)

    def exit_status(self, timeout: float) -> int | None:
        self._channel.status_event.wait(timeout)
        status = self._channel.exit_status
        return None if status < 0 else status
