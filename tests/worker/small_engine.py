"""The lab's small engine in the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab import engine


@contextmanager
def served() -> Iterator[int]:
    """Its port; `mode` changes what it does."""
    running = engine.Engine(engine.Arguments(["serve", "m", "--port", "0"]), engine.Mode(""))
    handler = type("Handler", (engine.Handler,), {"engine": running, "log_message": lambda *_: None})
    server = engine.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield int(server.server_address[1])
    running.stopping.set()
    server.shutdown()


def mode(port: int, words: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(f"POST /lab/mode HTTP/1.0\r\nContent-Length: {len(words)}\r\n\r\n{words}".encode())
        link.recv(999)
