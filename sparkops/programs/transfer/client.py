"""Another node as the place that contents come from: a run's certificates, what it passes on by its number.

`fetching` uses it as it uses a hub; what comes as a whole is read in one go. It must not know of disks.
"""

import contextlib
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sparkops.core.messages import Refused
from sparkops.programs.fetch.http import Remote, Retry
from sparkops.programs.transfer import tls as passage

if TYPE_CHECKING:
    from sparkops.worker.calls import Call

POLL = 0.2
"""Seconds until a file that is not proven there yet is asked for again."""
BLOCK = 1 << 20
GATHER = 0.5
"""Seconds after which a block that does not fill is passed on as it is."""
SHORT = 1 << 16
"""Bytes that a head, or an answer which is no file, has at most."""
TRY = 5.0
"""Seconds in which a relay has to answer when it is tried."""
_CERTIFICATE = re.compile(r"CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED", re.IGNORECASE)


class Peer:
    """The node `node` at `address` and `port`, asked with `credentials`; `files` are the manifest's.

    `way` tells people how it is reached (`spark-01 over 192.168.100.1`).
    """

    unavailable = "peer-not-answering"
    wrong_content = "peer-content-wrong"

    def __init__(self, order: dict[str, Any], files: list[tuple[str, int, str]]) -> None:
        self.node, self.address, self.port = str(order["node"]), str(order["address"]), int(order["port"])
        self.way = f"{self.node} over {self.address}"
        self._numbers = {path: number for number, (path, _, _) in enumerate(files)}
        self.context = passage.context(order["credentials"], serving=False)

    def remote(self, path: str, size: int) -> Remote:
        """A file of the manifest."""
        return Remote(f"/{self._numbers[path]}", size, f"{path} from {self.way}")

    def client(self, stall: float) -> "Client":
        """A connection of one thread."""
        return Client(self, stall)

    def done(self) -> None:
        """Say that nothing more is needed. Who does not hear it finds out by itself."""
        client = Client(self, TRY)
        with contextlib.suppress(Retry, Refused):
            client.ask("POST", "/done")
        client.close()


class Body:
    """The bytes `start` to `end` of a file, read from the connection in blocks; `first` came with the head."""

    ranged = True

    def __init__(self, tls: ssl.SSLSocket, buffer: memoryview, start: int, end: int, first: bytes) -> None:
        self.start, self.end = start, end
        self._tls, self._buffer, self._first = tls, buffer, first
        self._left = end - start
        self._broken: OSError | None = None

    def take(self, limit: int) -> bytes | memoryview:
        """The next bytes: a block, or what came in `GATHER` seconds or before it broke. Good until the next call."""
        if self._broken is not None:
            raise self._broken
        if self._first:
            first, self._first = self._first[:limit], self._first[limit:]
            self._left -= len(first)
            return first
        block, size = self._buffer[: min(limit, self._left)], 0
        until = time.monotonic() + GATHER
        while size < len(block) and time.monotonic() < until:
            try:
                count = self._tls.recv_into(block[size:])
            except OSError as error:
                self._broken = error
                break
            if not count:
                break
            size += count
        if self._broken is not None and not size:
            raise self._broken
        self._left -= size
        return block[:size]

    def finish(self) -> bool:
        """After the last byte: whether the connection can serve another request."""
        return self._left == 0


class Client:
    """A connection to a relay, kept open. `stall` is the seconds of silence that end a try."""

    def __init__(self, peer: Peer, stall: float) -> None:
        self._peer, self._stall = peer, stall
        self._open: ssl.SSLSocket | None = None
        self._buffer = memoryview(bytearray(BLOCK))

    def close(self) -> None:
        """Let go of the connection."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def get(self, remote: Remote, start: int, end: int) -> Body:
        """The bytes `start` to `end` (exclusive) of a file.

        Raises Retry, and Refused for what another try won't change.
        """
        status, headers, first = self._exchange("GET", remote.url, f"Range: bytes={start}-{end - 1}\r\n")
        if status == 206 and self._open is not None:
            if headers.get("content-range") != f"bytes {start}-{end - 1}/{remote.size}":
                self.close()
                raise Refused(f"{remote.label}: another range was answered than the one asked for")
            return Body(self._open, self._buffer, start, end, first)
        text = self._text(headers, first)
        if status == 425:
            raise Retry(f"{self._peer.node} does not have it yet ({text})", POLL, waiting=True)
        self.close()
        if status == 410:
            raise Refused(
                f"{self._peer.node}, which it was to come from, ended without {remote.label.partition(' ')[0]}: {text}",
                hint=f"see to {self._peer.node} and run apply again; nothing that arrived is lost",
            )
        raise Refused(f"{remote.label}: answered with {status} ({text})", hint="run apply again")

    def whole(self, target: str) -> Iterator[bytes]:
        """What has no size beforehand, from its beginning to its end; the connection is used for nothing else.

        Raises Retry where it breaks off, and Refused for what another try won't change.
        """
        try:
            self._open = self._connect()
            self._open.sendall(f"GET {target} HTTP/1.1\r\nHost: {self._peer.node}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(self._open)
            answer.begin()
            if answer.status != 200:
                said = answer.read(SHORT).decode(errors="replace")
                raise Refused(f"{self._peer.way} answered with {answer.status} ({said})", hint="run apply again")
            while block := answer.read1(BLOCK):
                yield block
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from None
        finally:
            self.close()

    def _failed(self, error: Exception) -> Exception:
        """A connection's error as Refused, where a certificate is not accepted, or as Retry."""
        if isinstance(error, ssl.SSLError) and _CERTIFICATE.search(str(error)):
            return _not_trusted(self._peer, error)
        return Retry(_words(self._peer, error))

    def ask(self, method: str, target: str, headers: str = "") -> tuple[int, str]:
        """One request for a short answer: status and text. Raises as `get` does."""
        status, found, first = self._exchange(method, target, headers)
        return status, self._text(found, first)

    def _exchange(self, method: str, target: str, headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and what came of the content with them; on a connection that was kept, tried once anew.

        Raises Retry where the connection fails, Refused where a certificate is not accepted.
        """
        request = f"{method} {target} HTTP/1.1\r\nHost: {self._peer.node}\r\n{headers}\r\n".encode()
        while True:
            kept = self._open is not None
            try:
                self._open = self._open or self._connect()
                self._open.sendall(request)
                return _head(self._open)
            except OSError as error:
                self.close()
                failed = self._failed(error)
                if isinstance(failed, Refused) or not kept or isinstance(error, TimeoutError):
                    raise failed from None

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection((self._peer.address, self._peer.port), self._stall)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._peer.context.wrap_socket(plain, server_hostname=self._peer.address)

    def _text(self, headers: dict[str, str], first: bytes) -> str:
        """The rest of a short answer."""
        length = headers.get("content-length", "0")
        left = min(int(length), SHORT) if length.isdigit() else 0
        try:
            while self._open is not None and len(first) < left and (more := self._open.recv(left - len(first))):
                first += more
        except OSError:
            self.close()
        return first.decode(errors="replace")


def _head(tls: ssl.SSLSocket) -> tuple[int, dict[str, str], bytes]:
    """Status and headers of an answer, and what was read behind them. Raises OSError where it is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = tls.recv(1 << 14)
        data += more
        if not more or len(data) > SHORT:
            raise ConnectionResetError("the answer broke off")
    head, _, first = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ConnectionResetError("what came is no answer")
    pairs = (line.partition(":") for line in lines[1:])
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}, first


def _not_trusted(peer: Peer, error: ssl.SSLError) -> Refused:
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"the certificate of {peer.way} is not accepted ({error.verify_message})"
    else:
        what = f"{peer.way} does not accept this node's certificate ({error.reason})"
    return Refused(what, "certificate", hint="run apply again, which makes new ones; compare the clocks of both nodes")


def _words(peer: Peer, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{peer.way} does not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there any more on {peer.way}"
    return f"the connection to {peer.way} failed ({getattr(error, 'strerror', None) or error or type(error).__name__})"


def reach(call: "Call", args: dict[str, Any]) -> None:
    """Try whether the relay of `{node, address, port}` can be reached from here. Raises Refused `address`."""
    try:
        socket.create_connection((args["address"], args["port"]), TRY).close()
    except OSError as error:
        raise Refused(
            f"{args['node']} can't be reached at {args['address']} ({error.strerror or error})",
            "address",
            hint="see whether the link between the two is up, and no firewall in between",
        ) from None
