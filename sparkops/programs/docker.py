"""The Docker engine over its socket: one-shot requests, and streams of JSON lines.

It must not know what is asked for: images and units have their own modules. Every way of not getting an answer is
told apart: nobody listens (Unknown, with the reason in `docker_absence`), the engine hangs (Unknown), it refuses (a
status).
"""

import functools
import http.client
import json
import queue
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sparkops.core.deadline import within
from sparkops.core.messages import Refused, Unknown
from sparkops.programs import docker_absence
from sparkops.programs.connections import hang_up

SOCKET = "/var/run/docker.sock"
KNOWN = (1, 48)
"""The newest API version that this module was written for; image inspection knows platform manifests since then."""
OLDEST = (1, 41)
BUILD_LABEL = "sparkops.build"
"""The label by which a build of sparkops is known."""
CHUNK = 256 << 10
WHOLE = 12 * 3600.0
"""Seconds for a pull, build, load or save: an engine that says something now and then is never silent."""
Body = bytes | Iterable[bytes] | Mapping[str, object] | None
Query = Mapping[str, object]
Answer = Mapping[str, Any]
"""An object of the engine's, as it answered it."""


class EngineError(Refused):
    """The engine answered with an error. `status` is HTTP's, 0 where the error came inside of a stream."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__("docker-error", {"text": message})
        self.status = status
        self.message = message


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker")
        self.path = path
        self.patience = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.patience)
        try:
            self.sock.connect(self.path)
        except TimeoutError:
            raise
        except BlockingIOError:
            raise Unknown.of("docker-busy") from None
        except OSError as error:
            raise docker_absence.why(self.path, error) from None


def request(
    method: str,
    path: str,
    body: Body = None,
    timeout: float = 20.0,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    at: str | None = None,
) -> tuple[int, bytes]:
    """Status and body of one request; `path` is without the API version (`/info`). `timeout` are the seconds for all.

    A mapping as body is sent as JSON. Raises Unknown where no engine listens, or it does not answer in time.
    """
    link = _Connection(at or SOCKET, timeout)

    def whole() -> tuple[int, bytes]:
        answer = _open(link, method, path, body, query, headers)
        return answer.status, answer.read()

    try:
        return within(timeout, whole)
    except TimeoutError:
        raise docker_absence.broken(link.path) or _silent(timeout) from None
    except (http.client.HTTPException, ConnectionError) as error:
        raise _cut(type(error).__name__) from None
    finally:
        hang_up(link)


def ask(path: str, timeout: float = 20.0, *, query: Query | None = None, at: str | None = None) -> Any:
    """What a GET answers, out of JSON; None where the engine has no such thing (404).

    Raises Unknown for every other way of not knowing, also where no engine listens.
    """
    body = _got(path, timeout, query, at)
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        raise Unknown.of("docker-answer-invalid", answer=f"{body!r:.200}") from None


def logs(container: str, lines: int, *, timestamps: bool = False, at: str | None = None) -> str | None:
    """The last lines of what a container said; None where there is no such container. Raises Unknown."""
    query = {"stdout": "1", "stderr": "1", "tail": str(lines), "timestamps": "1" if timestamps else None}
    body = _got(f"/containers/{quoted(container)}/logs", 20.0, query, at)
    return None if body is None else unframed(body).decode(errors="replace")


def _got(path: str, timeout: float, query: Query | None, at: str | None) -> bytes | None:
    """What a GET answers; None for 404. Raises Unknown."""
    status, body = request("GET", path, timeout=timeout, query=query, at=at)
    if status not in (200, 404):
        raise Unknown.of("docker-error-status", status=status, text=message(body))
    return body if status == 200 else None


def act(
    method: str,
    path: str,
    body: Body = None,
    timeout: float = 120.0,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    at: str | None = None,
) -> Any:
    """A request that changes something; its JSON answer or None. Raises EngineError with the engine's own words."""
    status, said = request(method, path, body, timeout, query=query, headers=headers, at=at)
    if status >= 400:
        raise EngineError(status, message(said))
    try:
        return json.loads(said) if said else None
    except ValueError:
        return None


def stream(
    method: str,
    path: str,
    body: Body = None,
    silence: float = 900.0,
    *,
    query: Query | None = None,
    headers: Mapping[str, str] | None = None,
    stopping: threading.Event | None = None,
    whole: float = WHOLE,
    at: str | None = None,
) -> Iterator[dict[str, object]]:
    """The JSON objects that an answer consists of, as they come (pull, build, load).

    Ends the request, which the engine takes as its end too, when `stopping` is set (Refused `cancelled`), the caller
    lets go of the iterator, nothing came for `silence` seconds, or it is not over after `whole` (Unknown). Raises
    EngineError for a refusal, also for one that comes inside of the stream.
    """
    until = time.monotonic() + whole
    link = _Connection(at or SOCKET, silence)
    lines: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
    try:
        answer = _open(link, method, path, body, query, headers)
        if answer.status >= 400:
            raise EngineError(answer.status, message(within(silence, answer.read)))
        threading.Thread(target=_pump, args=(answer, lines), daemon=True).start()
        for line in _arriving(lines, silence, stopping):
            yield _parsed(line)
            if time.monotonic() > until:
                raise Unknown.of("docker-unfinished", seconds=whole)
    finally:
        hang_up(link)


def content(path: str, silence: float, *, at: str | None = None) -> Iterator[bytes]:
    """The bytes that a GET answers, as they come, within `silence` seconds each and WHOLE seconds together.

    Raises EngineError for a refusal, Refused where the engine breaks off, Unknown where it says nothing.
    """
    until = time.monotonic() + WHOLE
    link = _Connection(at or SOCKET, silence)
    try:
        answer = _open(link, "GET", path, None, None, None)
        if answer.status >= 400:
            raise EngineError(answer.status, message(within(silence, answer.read)))
        while data := answer.read1(CHUNK):
            yield data
            if time.monotonic() > until:
                raise Unknown.of("docker-unfinished", seconds=WHOLE)
    except TimeoutError:
        raise _silent(silence) from None
    except http.client.HTTPException as error:
        raise Refused.of("docker-connection-broken", text=type(error).__name__) from None
    finally:
        hang_up(link)


def _pump(answer: http.client.HTTPResponse, lines: queue.SimpleQueue[bytes | Exception | None]) -> None:
    """Cut into lines here: HTTPResponse.readline takes a connection that broke for the end of the answer."""
    rest = b""
    try:
        while data := answer.read1(CHUNK):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                lines.put(line)
        if rest:
            lines.put(rest)
        lines.put(None)
    except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
        lines.put(error)


def _arriving(
    lines: queue.SimpleQueue[bytes | Exception | None], silence: float, stopping: threading.Event | None
) -> Iterator[bytes]:
    heard = time.monotonic()
    while True:
        if stopping is not None and stopping.is_set():
            raise Refused.of("cancelled", type="cancelled")
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            if time.monotonic() - heard > silence:
                raise _silent(silence) from None
            continue
        heard = time.monotonic()
        if line is None:
            return
        if isinstance(line, Exception):
            raise Refused.of("docker-connection-broken", text=str(line) or type(line).__name__)
        if line.strip():
            yield line


def _parsed(line: bytes) -> dict[str, object]:
    try:
        found = json.loads(line)
    except ValueError:
        raise Refused.of("docker-answer-invalid", answer=f"{line[:200]!r}") from None
    if not isinstance(found, dict):
        raise Refused.of("docker-answer-invalid", answer=f"{line[:200]!r}")
    if "error" in found:
        raise EngineError(0, str(found["error"]).strip())
    return found


def _open(
    link: _Connection, method: str, path: str, body: Body, query: Query | None, headers: Mapping[str, str] | None
) -> http.client.HTTPResponse:
    """The head of the answer to a request that is made on `link`, which stays open; within the link's patience."""
    sent = dict(headers or {})
    if isinstance(body, Mapping):
        body = json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    asked = "?" + urllib.parse.urlencode(_plain(query)) if query else ""
    try:
        version = "" if path in _UNVERSIONED else f"/v{api_version(link.path)}"
        link.request(method, version + path + asked, body=body, headers=sent)
        return within(link.patience, link.getresponse)
    except TimeoutError:
        raise docker_absence.broken(link.path) or _silent(link.patience) from None
    except (BrokenPipeError, ConnectionResetError):
        return _early(link)
    except http.client.HTTPException as error:
        raise docker_absence.broken(link.path) or _cut(type(error).__name__) from None


_UNVERSIONED = ("/version", "/_ping")


def _early(link: _Connection) -> http.client.HTTPResponse:
    """The answer of an engine that refused before it had read the whole body."""
    if link.sock is None:  # closed without a word, as when the engine is restarted
        raise Unknown.of("docker-connection-broken", text="it ended without an answer")
    answer = http.client.HTTPResponse(link.sock)
    try:
        within(link.patience, answer.begin)
    except (OSError, http.client.HTTPException):
        raise docker_absence.broken(link.path) or _cut("no answer to the data that was sent") from None
    return answer


def _cut(text: str) -> Unknown:
    return Unknown.of("docker-connection-broken", text=text)


def _plain(query: Query) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items() if value is not None
    }


def _silent(timeout: float) -> Unknown:
    return Unknown.of("docker-silent", seconds=timeout)


def message(body: bytes) -> str:
    """The engine's own words in an error's body."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if isinstance(found, dict) and "message" in found:
        return str(found["message"]).strip()
    return body[:500].decode(errors="replace").strip() or "no reason given"


@functools.lru_cache
def versions(at: str = SOCKET) -> dict[str, object]:
    """What `GET /version` answers (ApiVersion, MinAPIVersion, Os, Arch, …); asked once. Raises as `request` does."""
    found = ask("/version", at=at)
    if not isinstance(found, dict):
        raise Unknown.of("docker-answer-invalid", answer=f"{found!r:.200}")
    return found


def api_version(at: str = SOCKET) -> str:
    """The API version to speak: KNOWN where the engine has it, else the nearest that it has.

    Engines drop old versions (29 speaks 1.44 and up), so a fixed old one would not do. Raises Unknown for an engine
    older than OLDEST.
    """
    told = versions(at)
    newest = _pair(told.get("ApiVersion"))
    if newest < OLDEST:
        raise Unknown.of("docker-too-old", version=str(told.get("ApiVersion")))
    chosen = max(min(KNOWN, newest), _pair(told.get("MinAPIVersion")))
    return f"{chosen[0]}.{chosen[1]}"


def speaks(version: tuple[int, int], at: str = SOCKET) -> bool:
    """Whether this API version or a newer one is spoken with the engine. Raises Unknown where none answers."""
    return _pair(api_version(at)) >= version


def _pair(text: object) -> tuple[int, int]:
    major, _, minor = str(text or "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


def inspect_image(reference: str, *, at: str | None = None, query: Query | None = None) -> Answer | None:
    """What the engine knows of an image by name, digest or id; None where it has none. Raises Unknown."""
    found = ask(f"/images/{quoted(reference)}/json", query=query, at=at)
    return found if isinstance(found, dict) else None


def tag_image(source: str, repository: str, tag: str, *, at: str | None = None) -> None:
    """Give an image one more name. Raises EngineError, Unknown."""
    act("POST", f"/images/{quoted(source)}/tag", query={"repo": repository, "tag": tag}, at=at)


def inspect_container(name: str, *, at: str | None = None) -> Answer | None:
    """What the engine knows of a container by name or id; None where it has none. Raises Unknown."""
    found = ask(f"/containers/{quoted(name)}/json", at=at)
    return found if isinstance(found, dict) else None


def containers(
    filters: Mapping[str, list[str]] | None = None, *, every: bool = True, at: str | None = None
) -> list[Answer]:
    """The containers that pass `filters` (`{"label": ["a=b"]}`), stopped ones too if `every`. Raises Unknown."""
    query = {"all": "1" if every else "0", "filters": dict(filters or {})}
    found = ask("/containers/json", query=query, at=at)
    return [each for each in found or [] if isinstance(each, dict)]


def service_container(service: str) -> Answer | None:
    """The running container of a service of ours, whatever its name is now; None where none runs. Raises Unknown."""
    for each in containers({"label": [f"sparkops.service={service}"], "status": ["running", "paused"]}):
        found = inspect_container(str(each.get("Id")))
        if found is not None and (found.get("State") or {}).get("Running"):  # else it has ended since it was listed
            return found
    return None


def quoted(name: str) -> str:
    """A name as part of a path; slashes and colons stay, as the engine wants them."""
    return urllib.parse.quote(name, safe="/:@")


def unframed(data: bytes) -> bytes:
    """A container's output without the engine's frames (one byte stream, three zeros, four bytes length).

    A container with a terminal has none.
    """
    if data[1:4] != b"\0\0\0":
        return data
    parts = []
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "big")
        parts.append(data[8 : 8 + size])
        data = data[8 + size :]
    return b"".join(parts)
