"""Ranged GETs from a hub with the standard library: redirects, proxies, and what an answer means.

The token goes to the hub's own origin only; an encrypted way never leads to a plain one. It must not know of disks.
"""

import email.utils
import encodings.idna  # noqa: F401 - Python would look for it on disk later, where the owner may not read
import functools
import http.client
import re
import socket
import ssl
import time
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from sparkops.core.deadline import within
from sparkops.core.messages import Refused
from sparkops.programs.connections import hang_up

REDIRECTS = 8
BLOCK = 1 << 20
WAIT = 0.5
"""Seconds after which a block that does not fill is passed on as it is."""
LOST = (OSError, http.client.HTTPException)
"""What a connection that fails raises."""
_USER_AGENT = "sparkops"


class Retry(Exception):
    """This try failed and another may not; `after` is the seconds that the server asks to wait, or None.

    `waiting`: the file is not there yet, which is no failure. `id`: the error of what time alone hardly repairs.
    """

    def __init__(self, why: str, after: float | None = None, waiting: bool = False, id: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.after = after
        self.waiting = waiting
        self.id = id


@dataclass
class Remote:
    """One file at the hub: `url` there, and where its content was last found (`located`, a signed address, expires)."""

    url: str
    size: int
    label: str
    located: str = ""


class Gathered:
    """The bytes `start` to `end` of a file in an answer without HTTP's chunks, read from under it into `buffer`.

    `ranged` is False where it is the whole. A piece is what the kernel has at the moment, 64 kB or less on a fast way;
    storing and counting each costs more than receiving it, and the answer's own `read1` copies each, which takes 8 %
    more processor time.
    """

    def __init__(
        self, response: http.client.HTTPResponse, buffer: memoryview, start: int, end: int, *, ranged: bool = True
    ) -> None:
        self._response, self._buffer, self.left = response, buffer, end - start
        self.start, self.end, self.ranged = start, end, ranged
        self._broken: Exception | None = None

    def take(self, limit: int) -> memoryview:
        """The next bytes: a block, or what came in WAIT seconds or before it broke. Good until the next call."""
        if self._broken is not None:
            raise self._broken
        block, size = self._buffer[: min(limit, self.left)], 0
        until = time.monotonic() + WAIT
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
        self.left -= size
        return block[:size]

    def finish(self) -> bool:
        """After the last byte: whether the connection can serve another request."""
        self._response.close()
        return self.left == 0


class ChunkedBody:
    """The same of an answer that is sent in HTTP's chunks, which only its own `read1` can read."""

    def __init__(self, response: http.client.HTTPResponse, start: int, end: int, *, ranged: bool) -> None:
        self._response, self.start, self.end, self.ranged = response, start, end, ranged

    def take(self, limit: int) -> bytes:
        """The next bytes, at most `limit` (the server's pieces are as they are); b"" when it ended."""
        return self._response.read1(limit)

    def finish(self) -> bool:
        """No: `read1` does not tell whether the last chunk has come."""
        return False


@dataclass(frozen=True)
class Hub:
    """The hub: `endpoint` without a final slash, and what is fetched from it. `token` may be empty."""

    endpoint: str
    repository: str
    commit: str
    token: str
    unavailable = "hub-not-answering"
    wrong_content = "hub-content-wrong"

    @property
    def name(self) -> str:
        return self.endpoint

    def client(self, stall: float) -> "Client":
        """The connections of one thread."""
        return Client(self, stall)

    def remote(self, path: str, size: int) -> Remote:
        """The file `path` of the repository at the commit."""
        url = f"{self.endpoint}/{quote(self.repository)}/resolve/{self.commit}/{quote(path)}"
        return Remote(url, size, f"{path} of {self.repository}@{self.commit[:12]} at {self.endpoint}")


class Client:
    """The connections of one thread, kept open per origin.

    `stall` is the seconds of silence that end a try, and those within which the head of an answer has to be there.
    """

    def __init__(self, hub: Hub, stall: float) -> None:
        self._hub = hub
        self._stall = stall
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self._buffer = memoryview(bytearray(BLOCK))

    def close(self) -> None:
        for connection in self._open.values():
            hang_up(connection)
        self._open.clear()

    def get(self, remote: Remote, start: int, end: int) -> Gathered | ChunkedBody:
        """The bytes `start` to `end` (exclusive) of a file, or all of it from a server that ignores ranges.

        Raises Retry, and Refused for what another try won't change.
        """
        url = remote.located or remote.url
        for _ in range(REDIRECTS):
            response = self._request(url, start, end)
            if response.status not in (301, 302, 303, 307, 308):
                break
            self._pass_over(response)
            url = self._next(url, response, remote)
        else:
            raise Refused.of("hub-redirects-endless", file=remote.label, limit=REDIRECTS)
        away = _origin(url) != _origin(remote.url)
        if response.status in (200, 206):
            remote.located = url if away else ""
            return self._body(remote, response, start, end)
        self._drop(url)
        if away and response.status in (400, 401, 403, 404, 410):
            remote.located = ""
            raise Retry(f"its download address has expired (status {response.status})", 0.0)
        raise self._fault(remote, response)

    def _request(self, url: str, start: int, end: int) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        if self._hub.token and _origin(url) == _origin(self._hub.endpoint):
            headers["Authorization"] = f"Bearer {self._hub.token}"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for fresh in (False, True):
            connection, target = self._connection(url, path, fresh)
            try:
                return within(self._stall, functools.partial(head, connection, "GET", target, headers))
            except ssl.SSLCertVerificationError as error:
                why = error.verify_message
                raise Refused.of("hub-certificate-not-trusted", host=parts.netloc, why=why) from None
            except LOST as error:
                self._drop(url)
                if fresh or isinstance(error, (TimeoutError, socket.gaierror, ConnectionRefusedError)):
                    raise Retry(_describe(parts.netloc, error)) from None
        raise AssertionError("unreachable")

    def _connection(self, url: str, path: str, fresh: bool) -> tuple[http.client.HTTPConnection, str]:
        """A connection for this URL and the request's target on it; through the proxy that the environment names."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = _proxy(parts.scheme, host)
        target = url if proxy and parts.scheme == "http" else path
        kept = self._open.get(_origin(url))
        if kept is not None and not fresh:
            return kept, target
        through = (proxy[0], proxy[1]) if proxy else (host, port)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(*through, timeout=self._stall, context=context)
            if proxy:
                connection.set_tunnel(host, port)
        else:
            connection = http.client.HTTPConnection(*through, timeout=self._stall)
        self._drop(url)
        self._open[_origin(url)] = connection
        return connection, target

    def _drop(self, url: str) -> None:
        connection = self._open.pop(_origin(url), None)
        if connection is not None:
            hang_up(connection)

    def _pass_over(self, response: http.client.HTTPResponse) -> None:
        """Read a redirect's own text, so that its connection can be used again."""
        try:
            within(self._stall, lambda: response.read(65536))
        except LOST as error:
            self.close()
            raise Retry(_describe("the hub", error)) from None

    def _next(self, url: str, response: http.client.HTTPResponse, remote: Remote) -> str:
        found = urljoin(url, response.headers.get("Location") or "")
        scheme = urlsplit(found).scheme
        if scheme not in ("http", "https") or (scheme == "http" and not self._hub.endpoint.startswith("http:")):
            raise Refused.of("hub-redirect-not-encrypted", file=remote.label, scheme=scheme or "nameless")
        return found

    def _body(self, remote: Remote, response: http.client.HTTPResponse, start: int, end: int) -> Gathered | ChunkedBody:
        if response.status == 206:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", (response.headers.get("Content-Range") or "").strip())
            if match is None or int(match[1]) != start:
                self.close()
                raise Retry("the server answered another range than the one asked for")
            if match[3] != "*" and int(match[3]) != remote.size:
                raise wrong_size(remote, int(match[3]))
            return self._read(response, start, min(end, int(match[2]) + 1), ranged=True)
        length = response.headers.get("Content-Length")
        if length is not None and length.isdecimal() and int(length) != remote.size:
            self.close()
            raise wrong_size(remote, int(length))
        return self._read(response, 0, remote.size, ranged=start == 0 and end == remote.size)

    def _read(
        self, response: http.client.HTTPResponse, start: int, end: int, *, ranged: bool
    ) -> Gathered | ChunkedBody:
        if response.chunked:
            return ChunkedBody(response, start, end, ranged=ranged)
        return Gathered(response, self._buffer, start, end, ranged=ranged)

    def _fault(self, remote: Remote, response: http.client.HTTPResponse) -> Exception:
        status = response.status
        code = response.headers.get("X-Error-Code") or ""
        if status in (408, 425, 429) or status >= 500:
            return Retry(f"{self._hub.endpoint} answered {status} {response.reason}", _retry_after(response))
        if code == "GatedRepo":
            page = f"{self._hub.endpoint}/{self._hub.repository}"
            return Refused.of("hub-repository-gated-for-node", file=remote.label, page=page)
        if status in (401, 403):
            id = "hub-access-denied" if self._hub.token else "hub-access-denied-without-token"
            return Refused.of(id, file=remote.label, status=status)
        if status == 416:
            return wrong_size(remote, None)
        return Refused.of("hub-file-not-served", file=remote.label, status=status, reason=response.reason)


def head(
    connection: http.client.HTTPConnection, method: str, target: str, headers: dict[str, str]
) -> http.client.HTTPResponse:
    """The head of the answer to a request."""
    connection.request(method, target, headers=headers)
    return connection.getresponse()


def wrong_size(remote: Remote, size: int | None) -> Refused:
    """The hub serves another size than its own list of files says; None where it is only known to be smaller."""
    served = f"{size} bytes" if size is not None else "fewer bytes"
    return Refused.of("hub-size-wrong", file=remote.label, served=served, expected=remote.size)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, f"{parts.hostname}:{port}"


def _proxy(scheme: str, host: str) -> tuple[str, int] | None:
    """The proxy that HTTPS_PROXY or HTTP_PROXY of the node's environment names for this host, minding NO_PROXY."""
    named = urllib.request.getproxies_environment()
    if scheme not in named or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(named[scheme] if "//" in named[scheme] else f"http://{named[scheme]}")
    return (parts.hostname, parts.port or 3128) if parts.hostname else None


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    text = (response.headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _describe(host: str, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{host} does not answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name {host} can not be resolved here"
    return f"the connection to {host} failed ({getattr(error, 'strerror', None) or error or type(error).__name__})"
