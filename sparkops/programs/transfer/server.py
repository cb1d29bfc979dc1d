"""Content over HTTP/1.1 and TLS, for holders of a certificate of the run: `GET /17` is number 17 of the content.

`POST /done` says that this receiver needs no more, and there is nothing else. It must not know what the content is.
"""

import contextlib
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output
from sparkops.programs.transfer import tls

PATIENCE = 60.0
"""Seconds in which a receiver has to take or to send something."""
CONNECTIONS = 64
Asked = socket.socket | tuple[bytes, socket.socket]
"""What socketserver hands on; here always a socket."""
SHOWN = 100
"""Characters of a refused request that a notice shows."""


class Served(Protocol):
    """Content by number: how many there are, their bytes together, and the answer to a request."""

    @property
    def count(self) -> int: ...
    @property
    def size(self) -> int: ...
    def answer(self, request: "Request", number: int) -> None: ...


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    disable_nagle_algorithm = True
    server: "Server"
    connection: ssl.SSLSocket

    def setup(self) -> None:
        super().setup()
        self.receiver = tls.name_of(self.connection)

    def do_GET(self) -> None:
        self.server.requested(self.receiver)
        text = self.path[1:]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
        content = self.server.content
        if self.path != f"/{number}" or not 0 <= number < content.count or self._has_body():
            return self._refuse()
        content.answer(self, number)
        return self._end_when_over()

    def do_POST(self) -> None:
        self.server.requested(self.receiver)
        if self.path != "/done" or self._has_body():
            return self._refuse()
        self.server.finished(self.receiver)
        self.reply(200, "done")
        return self._end_when_over()

    def reply(self, status: int, text: str, content_type: str = "text/plain") -> None:
        """A short answer."""
        body = text.encode()
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def sent(self, size: int) -> None:
        """Count bytes that went out. Raises Refused `cancelled` when the server has to stop."""
        self.server.sent(size)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is refused is a notice."""

    def _refuse(self) -> None:
        self.server.output.notice(
            "transfer-request-refused", receiver=self.receiver, request=f"{self.command} {self.path[:SHOWN]!r}"
        )
        self.reply(404, "no such content")
        self.close_connection = self._has_body()

    def _has_body(self) -> bool:
        return self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers

    def _end_when_over(self) -> None:
        self.close_connection = self.close_connection or self.server.over


class Server(ThreadingHTTPServer):
    """Serves `content` on a listening socket; `idle` and `seconds` as in `main.Spec`."""

    daemon_threads = True
    timeout = 0.5

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        content: Served,
        output: Output,
        *,
        receivers: frozenset[str],
        idle: float,
        seconds: float,
    ) -> None:
        super().__init__(listener.getsockname(), Request, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.content, self.output = content, output
        self._context = context
        self._receivers, self._idle = receivers, idle
        self._until = time.monotonic() + seconds
        self._requested = time.monotonic()
        self._done: set[str] = set()
        self._sent = 0
        self._free = threading.Semaphore(CONNECTIONS)
        self._lock = threading.Lock()
        text = f"sending to {', '.join(sorted(receivers))}"
        self._tracker = Tracker(output, text, content.size * len(receivers))

    def run(self) -> dict[str, object]:
        """Serve until it is over; the program's result."""
        while not self.over:
            self.output.check()
            self.handle_request()
        return {"sent": self._sent, "done": sorted(self._done)}

    @property
    def over(self) -> bool:
        """Whether all receivers are done, no request came for a while, or the time is over."""
        now = time.monotonic()
        return self._receivers <= self._done or now - self._requested > self._idle or now > self._until

    def requested(self, receiver: str) -> None:
        """A request came; who asks again is not done."""
        self._requested = time.monotonic()
        self._done.discard(receiver)

    def finished(self, receiver: str) -> None:
        """A receiver is done. After the last one no connection is taken any more."""
        self._done.add(receiver)
        if self._receivers <= self._done:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def sent(self, size: int) -> None:
        self.output.check()
        self._requested = time.monotonic()
        with self._lock:
            self._sent += size
        self._tracker.add(size)

    def process_request(self, request: Asked, client_address: object) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Asked, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def finish_request(self, request: Asked, client_address: Any) -> None:
        """One connection to its end. Without a certificate of this authority there is no answer at all."""
        assert isinstance(request, socket.socket)
        request.settimeout(PATIENCE)
        try:
            with self._context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as connection:
                _handshake(connection)
                super().finish_request(connection, client_address)
        except (OSError, ValueError) as error:
            text = str(getattr(error, "reason", None) or error)
            self.output.notice("transfer-connection-failed", address=client_address[0], text=text)

    def handle_error(self, request: object, client_address: object) -> None:
        """What ends a connection otherwise (`cancelled`) ends the program by itself."""


def _handshake(connection: ssl.SSLSocket) -> None:
    """The handshake. Before the end what the other side has sent is read, else the kernel drops the reason with it."""
    try:
        connection.do_handshake()
    except ssl.SSLError:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(1.0)
            while connection.recv(1 << 16):
                pass
        raise
