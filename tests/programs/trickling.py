"""A server on a real socket that never falls silent and never comes to an end: it sends a byte now and then."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

BEAT = 0.05


@dataclass
class Trickle:
    """`port` (or the path of a Unix socket), and how many connections came. `at_once` is sent first, whole; START
    in it stands for the first byte of the range that was asked for.
    """

    listener: socket.socket
    at_once: bytes
    endless: bytes
    ended: threading.Event = field(default_factory=threading.Event)
    connections: int = 0

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                self.connections += 1
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            asked = re.search(rb"bytes=(\d+)-", peer.recv(65536))
            peer.sendall(self.at_once.replace(b"START", asked[1] if asked else b"0"))
            while not self.ended.wait(BEAT):
                peer.sendall(self.endless)


@contextlib.contextmanager
def trickling(at_once: bytes = b"", endless: bytes = b"x", path: str = "") -> Iterator[Trickle]:
    """On 127.0.0.1, or on a Unix socket at `path`."""
    with socket.socket(socket.AF_UNIX if path else socket.AF_INET) as listener:
        listener.bind(path or ("127.0.0.1", 0))
        listener.listen(16)
        made = Trickle(listener, at_once, endless)
        threading.Thread(target=made.serve, daemon=True).start()
        try:
            yield made
        finally:
            made.ended.set()
            listener.shutdown(socket.SHUT_RDWR)
