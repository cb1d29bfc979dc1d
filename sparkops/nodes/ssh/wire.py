"""The bytes below SSH: a connected socket that knows for how long its peer has owed an answer.

paramiko's transport reads and writes it; nothing here knows SSH.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import tempfile
import threading
import time
from typing import IO, Any

from sparkops.core.deadline import within
from sparkops.core.errors import ConnectionFailed
from sparkops.nodes.transport import harmless, last_line

AHEAD = 65536
"""Bytes taken from the system at once: SSH asks for a packet's head and body one by one."""

SLEPT = 5.0
"""Seconds in one poll, which paramiko limits to 0.1: this process was stopped meanwhile, and the peer owed nothing."""


class Wire:
    """A socket or anything like one. `patience` (seconds; 0: endless) counts from the first unanswered question.

    When it is over, `lost` says so and every further use fails; the reader notices within its poll interval, whether
    somebody waits or not.
    """

    def __init__(self, peer: Any, process: subprocess.Popen[bytes] | None = None) -> None:
        self._peer = peer
        self._process = process
        self._ahead = b""
        self._asked: float | None = None
        self._sending = threading.Lock()
        self.patience = 0.0
        self.lost = ""

    def question(self) -> None:
        """Something was sent that the peer must answer."""
        if self._asked is None:
            self._asked = time.monotonic()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes. Raises TimeoutError, or OSError when patience is over."""
        if not self._ahead:
            started = time.monotonic()
            try:
                self._ahead = bytes(self._peer.recv(max(size, AHEAD)))
            except TimeoutError:
                if self._asked is not None and time.monotonic() - started > SLEPT:
                    self._asked = time.monotonic()
                self._check()
                raise
            self._asked = None
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def send(self, data: bytes) -> int:
        """Some of `data`; its length. Not being able to send is a question too."""
        try:
            with self._sending:
                return int(self._peer.send(data))
        except TimeoutError:
            self.question()
            self._check()
            raise

    def _check(self) -> None:
        if self.patience and self._asked is not None and time.monotonic() - self._asked > self.patience:
            self.lost = f"no answer for {time.monotonic() - self._asked:.0f} s"
            raise ConnectionAbortedError(errno.ECONNABORTED, self.lost)

    def settimeout(self, seconds: float | None) -> None:
        """See socket."""
        self._peer.settimeout(seconds)

    def getpeername(self) -> object:
        """See socket."""
        return self._peer.getpeername()

    @property
    def _closed(self) -> bool:
        """paramiko asks sockets this way."""
        return bool(self._peer._closed)

    def close(self) -> None:
        """Close it and end the proxy command behind it.

        Never amid a `send`: on a jump host's channel paramiko could put the data behind the close, which OpenSSH
        answers by dropping the whole connection, with all other nodes behind it.
        """
        with self._sending:
            self._peer.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()


def dial(host: str, port: int, deadline: float) -> Wire:
    """A TCP connection before `deadline` (monotonic seconds); each address gets a share of the time. Raises OSError."""
    addresses = within(
        max(0.0, deadline - time.monotonic()), lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    failure: OSError = TimeoutError()
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        peer = socket.socket(family, kind, protocol)
        try:
            peer.settimeout(left / (len(addresses) - number))
            peer.connect(address)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return Wire(peer)
        except OSError as error:
            failure = error
            peer.close()
    raise failure


class Proxied:
    """A proxy command (`ProxyCommand`) and the wire through it."""

    def __init__(self, command: str, node: str) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process writes to it
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._said,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ConnectionFailed.of("proxy-command-not-started", where=node, error=str(error)) from None
        finally:
            theirs.close()
        self.wire = Wire(ours, process)

    def words(self) -> str:
        """The last line that the command printed on its standard error."""
        self._said.seek(0)
        return last_line(harmless(self._said.read()[-2048:]))
