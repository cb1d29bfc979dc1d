"""A node passes content on: over TLS, to who holds a certificate of this run; what it is, its kinds know.

It speaks HTTP/1.1: `GET /17` is number 17 of the content, `POST /done` says that this receiver needs no more, and there
is nothing else. The listener stands on one address, in a child with the owner's rights, and is gone when all receivers
are done, when nobody came for a while, or at the end of its time. The child asks its parent for what only root may see.
"""

import contextlib
import ipaddress
import pwd
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from sparkops.programs.transfer import tls as passage
from sparkops.worker.calls import Refused
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.progress import Tracker

PATIENCE = 60.0
"""Seconds in which a receiver has to take or to say something."""
CONNECTIONS = 64
LINE = 4096
HEADERS = 64
START = 20.0

State = dict[str, Any]
Sent = Callable[[int], None]
"""Told the bytes that went out; may raise to stop."""


class Content(Protocol):
    """What is passed on, by number: how many there are, their bytes together, and the answer to a request."""

    count: int
    size: int

    def answer(self, tls: ssl.SSLSocket, number: int, headers: dict[str, str], sent: Sent) -> None: ...


def begin(key: str, module: str, args: State) -> State:
    """Start the relay that is the job `serve` of `module`, or find it running: `{port}`.

    `args` has beside what the module needs: address, credentials, fingerprint (of the authority), receivers (names),
    seconds (until its certificates end), idle (seconds without a request after which it ends). Raises Refused
    `address` where the node can't listen there.
    """
    name = f"relay {key} at {args['address']} for {args['fingerprint']}"
    folder = jobs.begin(name, module, "serve", args)
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        alive, port = jobs.alive(folder), jobs.said(folder).get("port")
        if alive and port and _listens(args["address"], port):
            return {"port": port}
        if not alive:
            jobs.outcome(folder)
            folder = jobs.begin(name, module, "serve", args)  # the one that was found had just served its last receiver
        time.sleep(0.05)
    raise Refused(f"the relay did not listen within {START:.0f} s", hint="look at the node's load; run apply again")


def _listens(address: str, port: int) -> bool:
    """Whether the relay takes connections; from its last receiver's end on it takes none."""
    try:
        socket.create_connection((address, port), START).close()
    except OSError:
        return False
    return True


def serve(
    job: jobs.Job,
    args: State,
    who: pwd.struct_passwd,
    made: Callable[[socket.socket, rights.Report], Content],
    look: Callable[[socket.socket], None],
) -> State:
    """Listen, pass on, end. Returns the bytes that were `sent` and who is `done`.

    `made(channel, say)` makes the content in the child; when that says `{"look": …}`, `look(channel)` answers it here.
    """
    context = passage.context(args["credentials"], serving=True)
    ours, childs = socket.socketpair()
    with _listen(args["address"]) as listener, ours, childs:
        port = listener.getsockname()[1]
        job.progress(text="waiting for receivers", port=port)

        def hear(message: State) -> None:
            if "look" in message:
                look(ours)
            if isinstance(message.get("progress"), dict):
                job.progress(**{key: message["progress"].get(key) for key in ("text", "done", "total")}, port=port)

        def work(say: rights.Report) -> State:
            return Relay(args, listener, context, made(childs, say), say, job.check).run()

        return rights.run(who, work, hear)


def _listen(address: str) -> socket.socket:
    """A listener on this one address, on a port that is free."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
    except OSError as error:
        listener.close()
        raise Refused(
            f"can't listen on {address}: {error.strerror}",
            "address",
            hint="see whether the interface is up and has this address (ip address)",
        ) from None
    listener.listen(CONNECTIONS)
    listener.settimeout(0.5)
    return listener


class Relay:
    """The child: serves until all receivers are done, nobody comes any more, or its time is over."""

    def __init__(
        self,
        order: State,
        listener: socket.socket,
        context: ssl.SSLContext,
        content: Content,
        say: rights.Report,
        check: Callable[[], None],
    ) -> None:
        self._listener, self._context, self._check = listener, context, check
        self._content = content
        self._waited = set(order["receivers"])
        self._done: set[str] = set()
        self._idle = order["idle"]
        self._until = time.monotonic() + order["seconds"]
        self._asked = time.monotonic()
        self._sent = 0
        self._places = threading.Semaphore(CONNECTIONS)
        self._guard = threading.Lock()
        word = f"passing on to {', '.join(sorted(self._waited))}"
        self._tracker = Tracker(say, check, word, content.size * len(self._waited))

    def run(self) -> State:
        """Accept until it is over."""
        while not self._over():
            self._check()
            try:
                connection, (address, *_) = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                if self._over():
                    break
                raise
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._talk, args=(connection, address), daemon=True).start()
        return {"sent": self._sent, "done": sorted(self._done)}

    def _over(self) -> bool:
        now = time.monotonic()
        return self._waited <= self._done or now - self._asked > self._idle or now > self._until

    def _talk(self, connection: socket.socket, address: str) -> None:
        """One connection to its end. Who shows no certificate of this authority gets no answer at all."""
        connection.settimeout(PATIENCE)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
                _greet(tls)
                name = passage.name_of(tls)
                reading = tls.makefile("rb")
                while not self._over() and (request := _request(reading)) is not None:
                    self._asked = time.monotonic()
                    self._answer(tls, name, *request)
        except (OSError, ValueError, Refused) as error:
            log(f"{address}: {getattr(error, 'reason', None) or error}")
        finally:
            connection.close()
            self._places.release()

    def _answer(self, tls: ssl.SSLSocket, name: str, method: str, target: str, headers: dict[str, str]) -> None:
        """Answer one request."""
        if (method, target) == ("POST", "/done"):
            self._done.add(name)
            if self._waited <= self._done:
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
            return plain(tls, 200, "good bye")
        self._done.discard(name)
        number = int(target[1:]) if target[1:].isascii() and target[1:].isdigit() and len(target) < 12 else -1
        if method != "GET" or target != f"/{number}" or not 0 <= number < self._content.count:
            log(f"{name} asked for {method} {target[:100]!r}, which is not passed on")
            return plain(tls, 404, "no such file")
        return self._content.answer(tls, number, headers, self._count)

    def _count(self, size: int) -> None:
        self._check()
        self._asked = time.monotonic()
        with self._guard:
            self._sent += size
        self._tracker.add(size)


def _greet(tls: ssl.SSLSocket) -> None:
    """The handshake. Who is refused shall hear why: what it has sent already is read, else the kernel cuts it short."""
    try:
        tls.do_handshake()
    except ssl.SSLError:
        with contextlib.suppress(OSError):
            tls.shutdown(socket.SHUT_WR)
            tls.settimeout(1.0)
            while tls.recv(1 << 16):
                pass
        raise


def _request(reading: BinaryIO) -> tuple[str, str, dict[str, str]] | None:
    """Method, target and headers of the next request; None at the end. Raises ValueError for what is none."""
    line = reading.readline(LINE)
    if not line:
        return None
    words = line.decode("latin-1").split()
    if len(words) != 3 or not line.endswith(b"\n") or not words[2].startswith("HTTP/1."):
        raise ValueError("what it said is no request")
    headers: dict[str, str] = {}
    for _ in range(HEADERS):
        line = reading.readline(LINE)
        if line in (b"\r\n", b"\n"):
            break
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not line.endswith(b"\n"):
            raise ValueError("a header that is none")
        headers[name.strip().lower()] = value.strip()
    else:
        raise ValueError("too many headers")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise ValueError("a request with a body")
    return words[0], words[1], headers


WORDS = {200: "OK", 404: "Not Found", 410: "Gone", 416: "Range Not Satisfiable", 425: "Too Early"}


def plain(tls: ssl.SSLSocket, status: int, text: str) -> None:
    """A short answer."""
    body = text.encode()[:1000]
    head = f"HTTP/1.1 {status} {WORDS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    tls.sendall(head.encode() + body)


def log(text: str) -> None:
    """Into the job's log, which is root's."""
    print(text, file=sys.stderr, flush=True)
