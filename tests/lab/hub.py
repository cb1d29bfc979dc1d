"""A model hub that behaves as the public one does, on this machine, with faults on demand.

It serves folders as repositories with commits and branches, to the real `huggingface_hub` client and to anything
that speaks the same HTTP (the surface is in `Hub`). Weights are answered, as there, by a redirect to another host
(the *store*, at the next address) with a signed, short-lived address; small files by the hub itself. A request log says
who asked for what, with which range, and how many bytes went out.

As a program (`python -m tests.lab.hub`) it serves until it is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import json
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal

from .machine import store_address

LFS_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.onnx")
LFS_SIZE = 10 << 20
CHUNK = 64 << 10
PIECE = 4 << 20
Stage = Literal["content", "resolve", "tree", "info"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with an answer. Fields combine; sizes are bytes of the body, times seconds.

    `stage` says in which answer: a file's "content", its "resolve" (address and metadata), a repository's "tree"
    or its "info". `status` replaces the answer (429 and 503 with `retry_after`; 403 on content is an expired address).
    """

    stage: Stage = "content"
    status: int | None = None
    retry_after: float | None = None
    delay: float = 0
    drop_after: int | None = None
    stall_after: int | None = None
    stall: float = 3600
    corrupt_at: int | None = None
    size_delta: int = 0
    ignore_range: bool = False
    rate: float | None = None


@dataclass(frozen=True)
class Request:
    """One line of the request log. `sent` counts body bytes; `file` is the path in the repository, "" for API calls."""

    origin: Literal["hub", "store"]
    method: str
    url: str
    repo: str
    file: str
    range: str | None
    authorization: str | None
    status: int
    sent: int
    seconds: float


@dataclass(frozen=True)
class Blob:
    """A file's content: where it lies, and the three names the hub gives it."""

    path: Path
    size: int
    sha256: str
    git_sha1: str
    lfs: bool


@dataclass(frozen=True)
class Repo:
    """A repository: `commits` maps a commit to its files, `branches` a name to a commit."""

    name: str
    commits: Mapping[str, Mapping[str, Blob]]
    branches: Mapping[str, str]
    gated: bool = False
    private: bool = False
    disabled: bool = False


@dataclass
class _Planned:
    pattern: str
    fault: Fault
    left: int | None


class Hub:
    """A running hub; use as a context manager, or `start` and `stop`.

    Served: `/api/models/R`, `…/revision/V`, `…/tree/V` (with pages), `…/paths-info/V`, `…/refs`, `…/commits/V`,
    `/api/whoami-v2`, and `/R/resolve/V/FILE` with ranges.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, *, store_port: int = 0) -> None:
        self._blobs = Path(tempfile.mkdtemp(prefix="sparkops-hub-"))
        self._repos: dict[str, Repo] = {}
        self._moved: dict[str, str] = {}
        self._tokens: dict[str, set[str]] = {}
        self._faults: list[_Planned] = []
        self._links: dict[str, tuple[str, str, Blob]] = {}
        self._log: list[Request] = []
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self._answering = 0
        self.page_size = 1000
        self._servers = [
            _Server((address, port), _HubHandler, self),
            _Server((store_address(address), store_port), _StoreHandler, self),
        ]
        self.endpoint = f"http://{address}:{self._servers[0].server_address[1]}"
        self.store = f"http://{store_address(address)}:{self._servers[1].server_address[1]}"

    def start(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        self.heal()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        shutil.rmtree(self._blobs, ignore_errors=True)

    def __enter__(self) -> Hub:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add_repo(
        self,
        name: str,
        folder: Path,
        *,
        branch: str = "main",
        gated: bool = False,
        private: bool = False,
        disabled: bool = False,
    ) -> str:
        """Commit the files of `folder` to a branch; returns the commit. Content is copied, so `folder` may change."""
        files = {
            path.relative_to(folder).as_posix(): self._take(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        with self._lock:
            old = self._repos.get(name) or Repo(name, {}, {})
            lines = [old.branches.get(branch, ""), *(f"{path} {blob.sha256}" for path, blob in files.items())]
            commit = hashlib.sha1("\n".join(lines).encode()).hexdigest()
            self._repos[name] = replace(
                old,
                commits={**old.commits, commit: files},
                branches={**old.branches, branch: commit},
                gated=gated,
                private=private,
                disabled=disabled,
            )
        return commit

    def move_repo(self, old: str, new: str) -> None:
        """Rename a repository; the old name is answered by a redirect from then on."""
        with self._lock:
            self._repos[new] = replace(self._repos.pop(old), name=new)
            self._moved[old] = new

    def remove_repo(self, name: str) -> None:
        with self._lock:
            self._repos.pop(name, None)

    def grant(self, token: str, *repos: str) -> None:
        """Make `token` valid, and let it read these gated or private repositories."""
        with self._lock:
            self._tokens.setdefault(token, set()).update(repos)

    def fail(self, path: str, fault: Fault, *, times: int | None = None) -> None:
        """Let `fault` happen to files (or, for tree and info, repositories) that match `path`; `times` None: always."""
        with self._lock:
            self._faults.append(_Planned(path, fault, times))

    def heal(self) -> None:
        """No faults from now on: what is slow or stands still goes on at once."""
        with self._lock:
            self._faults.clear()
            self._healed.set()
            self._healed = threading.Event()

    def expire_links(self) -> None:
        """Every address of the store handed out so far answers 403 from now on; the hub gives new ones."""
        with self._lock:
            self._links.clear()

    @property
    def requests(self) -> Sequence[Request]:
        """The finished requests so far, oldest first."""
        with self._lock:
            return tuple(self._log)

    def requests_for(self, file: str) -> Sequence[Request]:
        """The finished requests for the content or address of one file."""
        return [request for request in self.requests if request.file == file]

    def bytes_sent(self, file: str = "*") -> int:
        """Body bytes that went out for the files that match."""
        return sum(r.sent for r in self.requests if r.file and fnmatch.fnmatchcase(r.file, file))

    @property
    def answering(self) -> int:
        """The requests that are not finished yet."""
        with self._lock:
            return self._answering

    def forget(self) -> None:
        """Empty the request log."""
        with self._lock:
            self._log.clear()

    def _take(self, path: Path) -> Blob:
        size = path.stat().st_size
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(f"blob {size}\0".encode())
        with path.open("rb") as content:
            for chunk in iter(lambda: content.read(1 << 20), b""):
                sha256.update(chunk)
                sha1.update(chunk)
        stored = self._blobs / sha256.hexdigest()
        if not stored.exists():
            shutil.copyfile(path, stored)
        lfs = size > LFS_SIZE or any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LFS_PATTERNS)
        return Blob(stored, size, sha256.hexdigest(), sha1.hexdigest(), lfs)

    def _fault(self, path: str, stage: Stage) -> Fault:
        with self._lock:
            for planned in self._faults:
                if planned.fault.stage == stage and fnmatch.fnmatchcase(path, planned.pattern) and planned.left != 0:
                    if planned.left is not None:
                        planned.left -= 1
                    return planned.fault
        return Fault(stage=stage)

    def _link(self, repo: str, file: str, blob: Blob) -> str:
        signature = secrets.token_hex(16)
        with self._lock:
            self._links[signature] = (repo, file, blob)
        return f"{self.store}/{blob.sha256}?signature={signature}"

    def _linked(self, signature: str) -> tuple[str, str, Blob] | None:
        with self._lock:
            return self._links.get(signature)

    def _begun(self) -> threading.Event:
        """A request begins; what is set when the hub heals."""
        with self._lock:
            self._answering += 1
            return self._healed

    def _note(self, request: Request) -> None:
        with self._lock:
            self._log.append(request)
            self._answering -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], hub: Hub) -> None:
        self.hub = hub
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in mid-answer is what the tests are about; other errors are shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass
class _Asked:
    """What is known about the request in progress, for the log."""

    repo: str = ""
    file: str = ""
    status: int = 0
    sent: int = 0
    began: float = field(default_factory=time.monotonic)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Literal["hub", "store"] = "hub"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to the terminal: Hub.requests is the log."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def _serve(self) -> None:
        self.asked, self.healed = _Asked(), self.hub._begun()
        try:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(urllib.parse.urlsplit(self.path))
        finally:
            asked = self.asked
            self.hub._note(
                Request(
                    self.origin,
                    self.command,
                    self.path,
                    asked.repo,
                    asked.file,
                    self.headers.get("Range"),
                    self.headers.get("Authorization"),
                    asked.status,
                    asked.sent,
                    time.monotonic() - asked.began,
                )
            )

    def answer(self, url: urllib.parse.SplitResult) -> None:
        raise NotImplementedError

    def head(self, status: int, headers: Mapping[str, str | int]) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def put(self, data: bytes) -> None:
        self.wfile.write(data)
        self.asked.sent += len(data)

    def json(self, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.head(status, {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})})
        if self.command != "HEAD":
            self.put(body)

    def refuse(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        """An error as the public hub words it: X-Error-Code and X-Error-Message."""
        named = {"X-Error-Code": code} if code else {}
        told = {"X-Error-Message": message} if message else {}
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        self.json({"error": message or code or str(status)}, status, {**named, **told, **extra})

    def faulty(self, fault: Fault) -> bool:
        """Wait and refuse as the fault says; True where that was the answer."""
        if fault.delay:
            self.healed.wait(fault.delay)
        if fault.status is None:
            return False
        after = {"Retry_After": f"{fault.retry_after:g}"} if fault.retry_after is not None else {}
        self.refuse(fault.status, message="planned by the test", **after)
        return True

    def content(self, blob: Blob, fault: Fault, headers: Mapping[str, str | int]) -> None:
        """The file, or the range asked for, with whatever the fault does to it."""
        size = blob.size + fault.size_delta
        wanted = None if fault.ignore_range else _range(self.headers.get("Range"), size)
        if wanted == (0, 0):
            self.head(416, {"Content-Range": f"bytes */{size}", "Content-Length": 0})
            return
        begin, end = wanted or (0, size)
        accepted: dict[str, str] = {} if fault.ignore_range else {"Accept-Ranges": "bytes"}
        ranged: dict[str, str] = {"Content-Range": f"bytes {begin}-{end - 1}/{size}"} if wanted else {}
        sizes: dict[str, str | int] = {"Content-Length": end - begin, "Content-Type": "application/octet-stream"}
        self.head(206 if wanted else 200, {**headers, **sizes, **accepted, **ranged})
        if self.command == "HEAD":
            return
        with blob.path.open("rb") as file:
            if fault == Fault():
                self._send_whole(file, begin, end)
            else:
                self._send_damaged(_damaged(file, begin, end, fault), fault)

    def _send_damaged(self, pieces: Iterator[bytes], fault: Fault) -> None:
        for data in pieces:
            self._send_slowly(data, fault)
            if self.close_connection:
                return

    def _send_whole(self, file: BinaryIO, begin: int, end: int) -> None:
        """Without a fault the kernel sends it: who is measured shares the processor with this server."""
        self.wfile.flush()
        for at in range(begin, end, PIECE):
            self.asked.sent += self.connection.sendfile(file, at, min(PIECE, end - at))

    def _send_slowly(self, data: bytes, fault: Fault) -> None:
        sent = self.asked.sent
        if fault.drop_after is not None and sent + len(data) > fault.drop_after:
            self.put(data[: fault.drop_after - sent])
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if fault.stall_after is not None and sent + len(data) > fault.stall_after:
            keep = max(0, fault.stall_after - sent)
            self.put(data[:keep])
            self.wfile.flush()
            self.healed.wait(fault.stall)
            data = data[keep:]
        self.put(data)
        if fault.rate:
            self.healed.wait(len(data) / fault.rate)


class _StoreHandler(_Handler):
    origin = "store"

    def answer(self, url: urllib.parse.SplitResult) -> None:
        signature = dict(urllib.parse.parse_qsl(url.query)).get("signature", "")
        linked = self.hub._linked(signature)
        if linked is None:
            self.refuse(403, message="Request has expired")
            return
        self.asked.repo, self.asked.file, blob = linked
        fault = self.hub._fault(self.asked.file, "content")
        if not self.faulty(fault):
            self.content(blob, fault, {"ETag": f'"{blob.sha256}"'})


class _HubHandler(_Handler):
    _API = re.compile(
        r"/api/models/(?P<repo>[^/]+(?:/[^/]+)?)(?:/(?P<verb>revision|tree|paths-info|commits|refs)(?P<rest>/.*)?)?$"
    )
    _RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)$")

    def answer(self, url: urllib.parse.SplitResult) -> None:
        path = urllib.parse.unquote(url.path)
        raw = url.path
        if path == "/api/whoami-v2":
            self._whoami()
            return
        for pattern, act in ((self._API, self._api), (self._RESOLVE, self._resolve)):
            if match := pattern.match(raw):
                parts = {key: urllib.parse.unquote(value or "") for key, value in match.groupdict().items()}
                if (repo := self._allowed(parts["repo"], url)) is not None:
                    act(repo, parts, dict(urllib.parse.parse_qsl(url.query)))
                return
        self.refuse(404)

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()

    def _whoami(self) -> None:
        if self.token in self.hub._tokens:
            self.json({"type": "user", "name": "lab", "auth": {"accessToken": {"role": "read"}}})
        else:
            self.refuse(401, message="Invalid user token.")

    def _allowed(self, name: str, url: urllib.parse.SplitResult) -> Repo | None:
        """The repository, if it is there and this caller may see it; else the answer has been given."""
        self.asked.repo = name
        hub = self.hub
        if name in hub._moved:
            moved = url._replace(path=url.path.replace(name, hub._moved[name], 1))
            self.head(307, {"Location": moved.geturl(), "Content-Length": 0})
            return None
        if self.token and self.token not in hub._tokens:
            self.refuse(401, message="Invalid credentials in Authorization header")
            return None
        repo = hub._repos.get(name)
        granted = name in hub._tokens.get(self.token, ())
        if repo is None or (repo.private and not granted):
            if self.token:
                self.refuse(404, "RepoNotFound", "Repository not found")
            else:  # so that nobody learns which private names there are
                self.refuse(401, message="Invalid username or password.")
        elif repo.disabled:
            self.refuse(403, message="Access to this resource is disabled.")
        elif repo.gated and not granted and "/api/" not in self.path:
            restricted = f"Access to model {name} is restricted"
            if self.token:
                told = f" and you are not in the authorized list. Visit {hub.endpoint}/{name} to ask for access."
                self.refuse(403, "GatedRepo", restricted + told)
            else:
                told = ". You must have access to it and be authenticated to access it. Please log in."
                self.refuse(401, "GatedRepo", restricted + told)
        else:
            return repo
        return None

    def _commit(self, repo: Repo, revision: str) -> str | None:
        commit = repo.branches.get(revision, revision if revision in repo.commits else None)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _api(self, repo: Repo, parts: Mapping[str, str], query: Mapping[str, str]) -> None:
        verb, rest = parts["verb"], parts["rest"].strip("/")
        if verb == "refs":
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.branches.items()]
            self.json({"branches": branches, "tags": [], "converts": []})
            return
        revision, _, folder = rest.partition("/") if verb == "tree" else (rest, "", "")
        commit = self._commit(repo, revision or "main")
        if commit is None:
            return
        stage: Stage = "tree" if verb in ("tree", "paths-info") else "info"
        if self.faulty(self.hub._fault(repo.name, stage)):
            return
        files = repo.commits[commit]
        if verb == "tree":
            self._tree({p: b for p, b in files.items() if not folder or p.startswith(f"{folder}/")}, query)
        elif verb == "paths-info":
            asked = urllib.parse.parse_qs(self.body.decode()).get("paths", [])
            self.json([_entry(path, files[path]) for path in asked if path in files])
        elif verb == "commits":
            self.json(
                [{"id": commit, "title": "Add files", "message": "", "authors": [], "date": "2026-01-01T00:00:00.000Z"}]
            )
        else:
            self.json(self._info(repo, commit, files))

    def _info(self, repo: Repo, commit: str, files: Mapping[str, Blob]) -> dict[str, object]:
        return {
            "_id": commit[:24],
            "id": repo.name,
            "modelId": repo.name,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": repo.disabled,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "tags": [],
            "siblings": [{"rfilename": path} for path in files],
        }

    def _tree(self, files: Mapping[str, Blob], query: Mapping[str, str]) -> None:
        begin, size = int(query.get("cursor", 0)), self.hub.page_size
        entries = [_entry(path, blob) for path, blob in files.items()]
        link: dict[str, str] = {}
        if begin + size < len(entries):
            path = urllib.parse.urlsplit(self.path).path
            again = urllib.parse.urlencode({**query, "cursor": begin + size})
            link = {"Link": f'<{self.hub.endpoint}{path}?{again}>; rel="next"'}
        self.json(entries[begin : begin + size], headers=link)

    def _resolve(self, repo: Repo, parts: Mapping[str, str], _: Mapping[str, str]) -> None:
        commit = self._commit(repo, parts["revision"])
        if commit is None:
            return
        file = self.asked.file = parts["file"]
        blob = repo.commits[commit].get(file)
        if blob is None:
            self.refuse(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
            return
        if self.faulty(self.hub._fault(file, "resolve")):
            return
        if blob.lfs:
            linked: dict[str, str | int] = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": blob.size}
            location = self.hub._link(repo.name, file, blob)
            self.head(302, {"X-Repo-Commit": commit, **linked, "Location": location, "Content-Length": 0})
            return
        fault = self.hub._fault(file, "content") if self.command == "GET" else Fault()
        if not self.faulty(fault):
            self.content(blob, fault, {"X-Repo-Commit": commit, "ETag": f'"{blob.git_sha1}"'})


def _entry(path: str, blob: Blob) -> dict[str, object]:
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}} if blob.lfs else {}
    return {"type": "file", "oid": blob.git_sha1, "size": blob.size, "path": path, **lfs}


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Half-open bytes of a Range header; None without one, (0, 0) where it can't be met (RFC 9110, 14.1.2)."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (begin, end) if begin < end else (0, 0)


def _damaged(file: BinaryIO, begin: int, end: int, fault: Fault) -> Iterator[bytes]:
    """Bytes begin to end of a file, one of them flipped where the fault says so, zeros past its end."""
    step = CHUNK if fault.rate is None else max(1, min(CHUNK, int(fault.rate / 10)))
    file.seek(begin)
    for at in range(begin, end, step):
        want = min(step, end - at)
        data = bytearray(file.read(want).ljust(want, b"\0"))
        if fault.corrupt_at is not None and at <= fault.corrupt_at < at + want:
            data[fault.corrupt_at - at] ^= 0xFF
        yield bytes(data)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.hub", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--store-port", type=int, default=0)
    parser.add_argument("repos", nargs="*", metavar="NAME=FOLDER")
    arguments = parser.parse_args(argv)
    ended = threading.Event()
    stop: Callable[[int, object], None] = lambda *_: ended.set()  # noqa: E731
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with Hub(arguments.address, arguments.port, store_port=arguments.store_port) as hub:
        for name, _, folder in (repo.partition("=") for repo in arguments.repos):
            print(f"{name} {hub.add_repo(name, Path(folder))}", flush=True)
        print(hub.endpoint, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
