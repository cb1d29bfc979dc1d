"""The job of a node that passes a checkpoint on: proven files, over TLS, to who holds a certificate of this run.

It speaks HTTP/1.1: `GET /17` with a Range is file 17 of the manifest, `POST /done` says that this receiver needs
no more, and there is nothing else. What is not proven yet is answered with 425, with 410 once nobody works on it.
The listener stands on one address, in a child with the owner's rights, and is gone when all receivers are done, when
nobody came for a while, or at the end of its time. The child asks its parent for what only root may see.
"""

import contextlib
import ipaddress
import json
import os
import socket
import ssl
import stat
import sys
import threading
import time
from typing import Any, BinaryIO

from sparkops.core import frames
from sparkops.worker import checkpoint_proof as proof
from sparkops.worker import checkpoint_rights as rights
from sparkops.worker import jobs, passage, verifying
from sparkops.worker.calls import Call, Refused
from sparkops.worker.checkpoint_place import Place
from sparkops.worker.fetching_content import STORE
from sparkops.worker.tracking import Tracker

BLOCK = 1 << 20
PATIENCE = 60.0
"""Seconds in which a receiver has to take or to say something."""
LOOK = 1.0
"""Seconds between two looks at how far the node is."""
CONNECTIONS = 64
LINE = 4096
HEADERS = 64
START = 20.0

State = dict[str, Any]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def begin(call: Call, args: State) -> State:
    """Start the relay, or find it running: `{port}`. Raises Refused `address` where the node can't listen there.

    `args`: folder, state_dir, owner, files (of the manifest), address, credentials, fingerprint (of the authority),
    receivers (names), seconds (until its certificates end), idle (seconds without a request after which it ends), quiet
    (seconds without a job on the checkpoint, and without a push to it, after which no more is coming).
    """
    key = f"relay {args['folder']} at {args['address']} for {args['fingerprint']}"
    folder = jobs.begin(key, "passing", "serve", args)
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        alive, port = jobs.alive(folder), jobs.said(folder).get("port")
        if not alive:
            jobs.outcome(folder)
            raise Refused("the relay ended already", hint="run apply again")
        if port:
            return {"port": port}
        time.sleep(0.05)
    raise Refused(f"the relay did not listen within {START:.0f} s", hint="look at the node's load; run apply again")


def serve(job: jobs.Job, args: State) -> State:
    """The job: listen, pass on, end. Returns the bytes that were `sent` and who is `done`."""
    place = Place(args["folder"])
    context = passage.context(args["credentials"], serving=True)
    existing = place.open()
    who = proof.who_of(args["owner"], existing)
    if existing is not None:
        os.close(existing)
    ours, childs = socket.socketpair()
    with _listen(args["address"]) as listener, ours, childs:
        port = listener.getsockname()[1]
        job.progress(text="waiting for receivers", port=port)

        def hear(message: State) -> None:
            if "look" in message:
                _tell(ours, place, args, job.beside(f"checkpoint {place.folder}"))
            if isinstance(message.get("progress"), dict):
                job.progress(**{key: message["progress"].get(key) for key in ("text", "done", "total")}, port=port)

        return rights.run(who, lambda say: Relay(args, listener, context, childs, say, job.check).run(), hear)


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


def _tell(channel: socket.socket, place: Place, args: State, work: str) -> None:
    """Answer the child's look: the folders as descriptors, what is proven, and how the checkpoint's job (`work`) is."""
    published = place.open()
    staging = _open_or_none(place.beside(place.partial))
    proven: dict[str, str] = {}
    if published is not None:
        index = verifying.Index(args["state_dir"], place.folder)
        for path, size, oid in args["files"]:
            with contextlib.suppress(OSError):
                status = os.stat(path, dir_fd=published, follow_symlinks=False)
                known = index.find(status)
                if known is not None and known[0] == oid and status.st_size == size:
                    proven[path] = verifying.identity(status)
    state = {
        "proven": proven,
        "published": published is not None,
        "working": jobs.alive(work),
        "why": jobs.failure(work),
        "text": str(jobs.said(work).get("text") or ""),
    }
    handles = [each for each in (published, staging) if each is not None]
    try:
        socket.send_fds(channel, [b"\n"], handles)
        channel.sendall(frames.encode(state))
    finally:
        for handle in handles:
            os.close(handle)


def _open_or_none(path: str) -> int | None:
    try:
        return os.open(path, _FOLDER)
    except OSError:
        return None


class Holdings:
    """What of the manifest this node holds, proven, right now: in the published folder or on its way there."""

    def __init__(self, files: list[Any], quiet: float, channel: socket.socket, say: rights.Report) -> None:
        self._quiet = quiet
        self.files = [(str(path), int(size), str(oid)) for path, size, oid in files]
        self._channel, self._say = channel, say
        self._answers = channel.makefile("rb")
        self._lock = threading.Lock()
        self._published = self._staging = -1
        self._proven: dict[str, str] = {}
        self._looked = 0.0
        self._busy = time.monotonic()
        self.doing = ""
        self.why = ""

    def open(self, number: int) -> int | None:
        """A descriptor of a file that is proven; None where it is not, or not yet."""
        with self._lock:
            handle = self._open(number)
            if handle is None and time.monotonic() - self._looked >= LOOK:
                self._look()
                handle = self._open(number)
            return handle

    @property
    def ended(self) -> bool:
        """Whether nobody works on what is missing here."""
        return time.monotonic() - self._busy > self._quiet

    def _open(self, number: int) -> int | None:
        path, size, oid = self.files[number]
        stored = os.path.join(STORE, oid.replace(":", "-"))
        handle = self._file(self._staging, stored, size)
        if handle is not None:
            if _noted(self._staging, stored) == verifying.lasting(os.fstat(handle)):
                return handle
            os.close(handle)
        handle = self._file(self._published, path, size)
        if handle is not None:
            if self._proven.get(path) == verifying.identity(os.fstat(handle)):
                return handle
            os.close(handle)
        return None

    def _file(self, folder: int, path: str, size: int) -> int | None:
        if folder < 0:
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return None
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return handle
        os.close(handle)
        return None

    def _look(self) -> None:
        """Ask the parent anew."""
        self._looked = time.monotonic()
        self._say({"look": True})
        _, handles, _, _ = socket.recv_fds(self._channel, 1, 2)
        state = frames.read(self._answers) or {}
        for old in (self._published, self._staging):
            if old >= 0:
                os.close(old)
        self._published = handles.pop(0) if state["published"] else -1
        self._staging = handles.pop(0) if handles else -1
        self._proven = state["proven"]
        self.doing, self.why = state["text"], state["why"]
        if state["working"] or self._pushed():
            self._busy = time.monotonic()

    def _pushed(self) -> bool:
        """Whether the controller has pushed something just now: then no job runs, and yet more is to come."""
        if self._staging < 0:
            return False
        newest = 0.0
        with contextlib.suppress(OSError):
            store = os.open(STORE, _FOLDER, dir_fd=self._staging)
            try:
                pushed = [name for name in os.listdir(store) if name.endswith(".pushed")]
                newest = max((os.stat(name, dir_fd=store).st_mtime for name in pushed), default=0.0)
            finally:
                os.close(store)
        return time.time() - newest < self._quiet


def _noted(staging: int, stored: str) -> Any:
    """The mark that an earlier proof left beside a content of the store."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        handle = os.open(stored + ".json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=staging)
        with open(handle, "rb") as file:
            return json.loads(file.read(1 << 20)).get("proven")
    return None


class Relay:
    """The child: serves until all receivers are done, nobody comes any more, or its time is over."""

    def __init__(
        self,
        order: State,
        listener: socket.socket,
        context: ssl.SSLContext,
        channel: socket.socket,
        say: rights.Report,
        check: Any,
    ) -> None:
        self._listener, self._context, self._check = listener, context, check
        self._holdings = Holdings(order["files"], order["quiet"], channel, say)
        self._waited = set(order["receivers"])
        self._done: set[str] = set()
        self._idle = order["idle"]
        self._until = time.monotonic() + order["seconds"]
        self._asked = time.monotonic()
        self._sent = 0
        self._places = threading.Semaphore(CONNECTIONS)
        self._guard = threading.Lock()
        size = sum(size for _, size, _ in self._holdings.files)
        self._tracker = Tracker(
            say, check, f"passing on to {', '.join(sorted(self._waited))}", size * len(self._waited)
        )

    def run(self) -> State:
        """Accept until it is over."""
        while not self._over():
            self._check()
            try:
                connection, (address, *_) = self._listener.accept()
            except TimeoutError:
                continue
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
            _log(f"{address}: {getattr(error, 'reason', None) or error}")
        finally:
            connection.close()
            self._places.release()

    def _answer(self, tls: ssl.SSLSocket, name: str, method: str, target: str, headers: dict[str, str]) -> None:
        """Answer one request."""
        if (method, target) == ("POST", "/done"):
            _plain(tls, 200, "good bye")
            self._done.add(name)
            return None
        number = int(target[1:]) if target[1:].isascii() and target[1:].isdigit() and len(target) < 12 else -1
        if method != "GET" or target != f"/{number}" or not 0 <= number < len(self._holdings.files):
            _log(f"{name} asked for {method} {target[:100]!r}, which is no file of the manifest")
            return _plain(tls, 404, "no such file")
        size = self._holdings.files[number][1]
        span = _span(headers.get("range", ""), size)
        if span is None:
            return _plain(tls, 416, f"the file has {size} bytes")
        handle = self._holdings.open(number)
        if handle is None and self._holdings.ended:
            return _plain(tls, 410, self._holdings.why or "nothing works on it there any more")
        if handle is None:
            return _plain(tls, 425, self._holdings.doing or "not proven yet")
        try:
            self._send(tls, handle, span, size)
        finally:
            os.close(handle)
        return None

    def _send(self, tls: ssl.SSLSocket, handle: int, span: tuple[int, int], size: int) -> None:
        start, end = span
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n"
        tls.sendall(f"{head}Content-Length: {end - start}\r\n\r\n".encode())
        position, buffer = start, memoryview(bytearray(BLOCK))
        while position < end:
            self._check()
            size = os.preadv(handle, [buffer[: min(BLOCK, end - position)]], position)
            if not size:
                raise OSError("the file became shorter")
            tls.sendall(buffer[:size])
            position += size
            self._asked = time.monotonic()
            with self._guard:
                self._sent += size
            self._tracker.add(size)
        verifying.drop_cache(handle, start, end - start)


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


def _span(text: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a Range; the whole file without one, None for one that can't be had."""
    if not text:
        return 0, size
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not (text.startswith("bytes=") and dash and first.isdigit() and last.isdigit()):
        return None
    start, end = int(first), int(last) + 1
    return (start, end) if start < end <= size else None


WORDS = {200: "OK", 404: "Not Found", 410: "Gone", 416: "Range Not Satisfiable", 425: "Too Early"}


def _plain(tls: ssl.SSLSocket, status: int, text: str) -> None:
    body = text.encode()[:1000]
    head = f"HTTP/1.1 {status} {WORDS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    tls.sendall(head.encode() + body)


def _log(text: str) -> None:
    """Into the job's log, which is root's."""
    print(text, file=sys.stderr, flush=True)


JOBS = {"serve": serve}
