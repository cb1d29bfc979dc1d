"""Another node of the run as the place that content comes from, over HTTP and TLS; `fetch` uses it as it uses a hub.

It must not know of disks.
"""

import contextlib
import encodings.idna  # noqa: F401 - Python would look for it on disk later, where the owner may not read
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from typing import Any

from sparkops.core.messages import Refused
from sparkops.programs.fetch.http import Remote, Retry
from sparkops.programs.transfer import tls

NOT_YET = 0.2
"""Seconds until a file that is not proven there yet is asked for again."""
BLOCK = 1 << 20
GATHER = 0.5
"""Seconds after which a block that does not fill is passed on as it is."""
SHORT = 1 << 16
"""Bytes that an answer which is no file has at most."""
DONE_TIMEOUT = 5.0
_CERTIFICATE = re.compile(r"CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED", re.IGNORECASE)
_LOST = (OSError, http.client.HTTPException)


class Peer:
    """The node of `{node, address, port, credentials}`; `files` are the manifest's.

    `way` says how it is reached (`spark-01 over 192.168.100.1`).
    """

    unavailable = "peer-not-answering"
    wrong_content = "peer-content-wrong"

    def __init__(self, order: dict[str, Any], files: list[tuple[str, int, str]]) -> None:
        self.node, self.address, self.port = str(order["node"]), str(order["address"]), int(order["port"])
        self.way = f"{self.node} over {self.address}"
        self._numbers = {path: number for number, (path, _, _) in enumerate(files)}
        self._context = tls.context(order["credentials"], serving=False)

    def remote(self, path: str, size: int) -> Remote:
        """A file of the manifest."""
        return Remote(f"/{self._numbers[path]}", size, f"{path} from {self.way}")

    def client(self, stall: float) -> "Client":
        """A connection of one thread; `stall` is the seconds of silence that end a try."""
        return Client(self, http.client.HTTPSConnection(self.address, self.port, timeout=stall, context=self._context))

    def done(self) -> None:
        """Say that nothing more is needed. A server that does not hear it ends when it is idle."""
        client = self.client(DONE_TIMEOUT)
        with contextlib.suppress(Retry, Refused):
            client.ask("POST", "/done")
        client.close()

    def failed(self, error: Exception) -> Exception:
        """A connection's error as Refused, where a certificate is not accepted, or as Retry."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._untrusted("transfer-source-untrusted", error.verify_message)
        if isinstance(error, ssl.SSLError) and _CERTIFICATE.search(str(error)):
            return self._untrusted("transfer-receiver-untrusted", error.reason)
        if isinstance(error, TimeoutError):
            return Retry(f"{self.way} does not answer in time")
        if isinstance(error, ConnectionRefusedError):
            return Retry(f"nothing listens on {self.way} any more")
        text = getattr(error, "strerror", None) or error or type(error).__name__
        return Retry(f"the connection to {self.way} failed ({text})")

    def _untrusted(self, id: str, text: str) -> Refused:
        return Refused.of(id, source=self.node, address=self.address, text=text)


class Body:
    """The bytes `start` to `end` of a file, read from the connection in blocks."""

    ranged = True

    def __init__(self, response: http.client.HTTPResponse, buffer: memoryview, start: int, end: int) -> None:
        self.start, self.end = start, end
        self._response, self._buffer = response, buffer
        self._left = end - start
        self._broken: Exception | None = None

    def take(self, limit: int) -> memoryview:
        """The next bytes: a block, or what came in `GATHER` seconds or before it broke. Good until the next call.

        Read from under the answer: its own `read1` copies each record, which takes 8 % more processor time.
        """
        if self._broken is not None:
            raise self._broken
        block, size = self._buffer[: min(limit, self._left)], 0
        until = time.monotonic() + GATHER
        while size < len(block) and time.monotonic() < until:
            try:
                count = self._response.fp.readinto1(block[size:])
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
        self._response.close()
        return self._left == 0


class Client:
    """A connection to a server of content, kept open."""

    def __init__(self, peer: Peer, connection: http.client.HTTPSConnection) -> None:
        self._peer, self._connection = peer, connection
        self._buffer = memoryview(bytearray(BLOCK))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, remote: Remote, start: int, end: int) -> Body:
        """The bytes `start` to `end` (exclusive) of a file.

        Raises Retry, and Refused for what another try won't change.
        """
        path = remote.label.partition(" ")[0]
        response = self._request("GET", remote.url, {"Range": f"bytes={start}-{end - 1}"})
        if response.status == 206:
            if response.headers.get("Content-Range") != f"bytes {start}-{end - 1}/{remote.size}":
                self.close()
                raise self._refused("transfer-range-wrong", path=path)
            return Body(response, self._buffer, start, end)
        text = self._text(response)
        if response.status == 425:
            raise Retry(f"{self._peer.node} does not have it yet ({text})", NOT_YET, waiting=True)
        self.close()
        if response.status == 410:
            raise Refused.of("transfer-source-ended", source=self._peer.node, path=path, error=_error(text))
        raise self._refused("transfer-answer-wrong", path=path, status=response.status, text=text)

    def whole(self, target: str) -> Iterator[bytes]:
        """What has no size beforehand, from its beginning to its end; the connection is used for nothing else.

        Raises Retry where it breaks off, and Refused for what another try won't change.
        """
        try:
            self._connection.request("GET", target)
            response = self._connection.getresponse()
            if response.status != 200:
                text = self._text(response)
                raise self._refused("transfer-answer-wrong", path=target, status=response.status, text=text)
            while block := response.read1(BLOCK):
                yield block
        except _LOST as error:
            raise self._peer.failed(error) from None
        finally:
            self.close()

    def ask(self, method: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """One request for a short answer: status and content. Raises as `get` does."""
        response = self._request(method, target, headers or {})
        try:
            return response.status, response.read(SHORT)
        except _LOST as error:
            raise self._peer.failed(error) from None

    def _request(self, method: str, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The head of the answer. On a connection that was open before, a failed request is repeated once.

        Raises Retry where the connection fails, Refused where a certificate is not accepted.
        """
        while True:
            reused = self._connection.sock is not None
            try:
                self._connection.request(method, target, headers=headers)
                return self._connection.getresponse()
            except _LOST as error:
                self.close()
                failed = self._peer.failed(error)
                if isinstance(failed, Refused) or not reused or isinstance(error, TimeoutError):
                    raise failed from None

    def _text(self, response: http.client.HTTPResponse) -> str:
        """A short answer, as far as it came."""
        try:
            return response.read(SHORT).decode(errors="replace")
        except _LOST:
            self.close()
            return ""

    def _refused(self, id: str, **args: Any) -> Refused:
        return Refused.of(id, source=self._peer.node, address=self._peer.address, **args)


def _error(text: str) -> Any:
    """The error of the source that an answer carries, if it does."""
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return Refused.from_json(found).as_json()
    return None
