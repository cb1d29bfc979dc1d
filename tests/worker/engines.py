"""A Docker engine that says what a test wants: a real HTTP server on a real socket."""

from __future__ import annotations

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """An engine that says what a test wants; `asked` are the requests it got."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is part of several tests."""

    def __init__(self, path: str, version: str = "1.41", oldest: str = "1.12") -> None:
        super().__init__(path, _Handler)
        self.version, self.oldest = version, oldest
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def address_string(self) -> str:
        return "peer"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        body = self._body()
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        if self.path == "/version":
            told = {"ApiVersion": self.server.version, "MinAPIVersion": self.server.oldest, "Os": "linux"}
            return say(json.dumps(told))(self)
        path = "/" + self.path.partition("?")[0].split("/", 2)[2]
        return self.server.answers[path](self)

    do_POST = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


def say(text: str | bytes, status: int = 200) -> Answer:
    data = text.encode() if isinstance(text, str) else text

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def lines(*parts: str, pause: float = 0.0, end: bool = True) -> Answer:
    """A chunked answer, one chunk a part; without `end` the connection breaks inside of it."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for part in parts:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part.encode()), part.encode()))
            handler.wfile.flush()
            time.sleep(pause)
        if end:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


@contextmanager
def running(path: str, **more: str) -> Iterator[Engine]:
    """An engine that listens at `path` for as long as the block runs."""
    engine = Engine(path, **more)
    threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield engine
    finally:
        engine.shutdown()
        engine.server_close()
