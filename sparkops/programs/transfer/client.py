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

from sparkops.core.deadline import within
from sparkops.core.kind_messages import PeerOrder
from sparkops.core.messages import Refused
from sparkops.programs.connections import hang_up
from sparkops.programs.fetch.http import BLOCK, LOST, Gathered, Remote, Retry, head
from sparkops.programs.fetch.pace import Pace, Watch
from sparkops.programs.transfer import tls

NOT_YET = 0.2
"""Seconds until a file that is not proven there yet is asked for again."""
SHORT = 1 << 16
"""Bytes that an answer which is no file has at most."""
DONE_TIMEOUT = 5.0
_CERTIFICATE = re.compile(r"CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED", re.IGNORECASE)


class Peer:
    """That node; `files` are the manifest's.

    `way` says how it is reached (`spark-01 over 192.168.100.1`).
    """

    unavailable = "peer-not-answering"
    wrong_content = "peer-content-wrong"

    def __init__(self, order: PeerOrder, files: list[tuple[str, int, str]]) -> None:
        self.node, self.address, self.port = order["node"], order["address"], order["port"]
        self.way = f"{self.node} over {self.address}"
        self._numbers = {path: number for number, (path, _, _) in enumerate(files)}
        self._context = tls.context(order["credentials"], serving=False)

    @property
    def name(self) -> str:
        return self.way

    def remote(self, path: str, size: int) -> Remote:
        """A file of the manifest."""
        return Remote(f"/{self._numbers[path]}", size, f"{path} from {self.way}")

    def client(self, stall: float) -> "Client":
        """A connection of one thread; `stall` is the seconds of silence that end a try."""
        connection = http.client.HTTPSConnection(self.address, self.port, timeout=stall, context=self._context)
        return Client(self, connection, stall)

    def done(self) -> None:
        """Say that nothing more is needed. A server that does not hear it ends when it is idle."""
        client = self.client(DONE_TIMEOUT)
        with contextlib.suppress(Retry, Refused):
            client.done()
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


class Client:
    """A connection to a server of content, kept open."""

    def __init__(self, peer: Peer, connection: http.client.HTTPSConnection, stall: float) -> None:
        self._peer, self._connection, self._stall = peer, connection, stall
        self._buffer = memoryview(bytearray(BLOCK))

    def close(self) -> None:
        hang_up(self._connection)

    def get(self, remote: Remote, start: int, end: int) -> Gathered:
        """The bytes `start` to `end` (exclusive) of a file.

        Raises Retry, and Refused for what another try won't change.
        """
        path = remote.label.partition(" ")[0]
        response = self._request("GET", remote.url, {"Range": f"bytes={start}-{end - 1}"})
        if response.status == 206:
            if response.headers.get("Content-Range") != f"bytes {start}-{end - 1}/{remote.size}":
                self.close()
                raise self._refused("transfer-range-wrong", path=path)
            return Gathered(response, self._buffer, start, end)
        text = self._text(response)
        if response.status == 425:
            raise Retry(f"{self._peer.node} does not have it yet ({text})", NOT_YET, waiting=True)
        self.close()
        if response.status == 410:
            raise Refused.of("transfer-source-ended", source=self._peer.node, path=path, error=_error(text))
        raise self._refused("transfer-answer-wrong", path=path, status=response.status, text=text)

    def whole(self, target: str) -> Iterator[bytes]:
        """What has no size beforehand, from its beginning to its end; the connection is used for nothing else.

        Raises Retry where it breaks off or crawls, and Refused for what another try won't change.
        """
        now = time.monotonic()
        watch = Watch(Pace(1, now), self._stall, self._stall, now)
        try:
            response = within(self._stall, lambda: head(self._connection, "GET", target, {}))
            if response.status != 200:
                text = self._text(response)
                raise self._refused("transfer-answer-wrong", path=target, status=response.status, text=text)
            while block := response.read1(BLOCK):
                yield block
                if watch.add(len(block), time.monotonic()) == "silent":
                    raise Retry(f"{self._peer.way} all but stopped sending")
        except LOST as error:
            raise self._peer.failed(error) from None
        finally:
            self.close()

    def done(self) -> None:
        """Say that nothing more is needed. Raises as `get` does."""
        self._text(self._request("POST", "/done", {}))

    def _request(self, method: str, target: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The head of the answer. On a connection that was open before, a failed request is repeated once.

        Raises Retry where the connection fails, Refused where a certificate is not accepted.
        """
        while True:
            reused = self._connection.sock is not None
            try:
                return within(self._stall, lambda: head(self._connection, method, target, headers))
            except LOST as error:
                self.close()
                failed = self._peer.failed(error)
                if isinstance(failed, Refused) or not reused or isinstance(error, TimeoutError):
                    raise failed from None

    def _text(self, response: http.client.HTTPResponse) -> str:
        """A short answer, as far as it came."""
        try:
            return within(self._stall, lambda: response.read(SHORT)).decode(errors="replace")
        except LOST:
            self.close()
            return ""

    def _refused(self, id: str, **args: object) -> Refused:
        return Refused(id, {"source": self._peer.node, "address": self._peer.address, **args})


def _error(text: str) -> object:
    """The error of the source that an answer carries, if it does."""
    with contextlib.suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            return Refused.from_json(found).as_json()
    return None
