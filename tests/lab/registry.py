"""Image registries of the lab, and pushing to them without an engine.

Two instances of Debian's docker-registry share one storage in the cache: an open one and one that asks for a
password. Images are put there over the registry's own HTTP API, so that what is pushed (layers, several platforms,
labels) is exactly what a test says, and its digests are known.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import machine
from .machine import Daemon, LabError

USER, PASSWORD = "lab", "lab-pass: word"
PASSWORD_BCRYPT = "$2y$05$RdMwmf4SWj95YuNXNgpuUOu3Fz0rI89MlLZJRrjFujO1uv6WNIARa"
"""bcrypt of PASSWORD: the registry takes no other kind, and the standard library can't make one."""

INSTANCES: Mapping[str, int] = {"registry": 5000, "private-registry": 5001}

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Layer:
    """A gzipped tar in a file; `diff_id` is the digest of the tar inside, `digest` that of the file."""

    path: Path
    digest: str
    diff_id: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Layer:
        outer, inner = hashlib.sha256(), hashlib.sha256()
        with path.open("rb") as raw:
            for chunk in iter(lambda: raw.read(1 << 20), b""):
                outer.update(chunk)
        with gzip.open(path) as tar:
            for chunk in iter(lambda: tar.read(1 << 20), b""):
                inner.update(chunk)
        return cls(path, f"sha256:{outer.hexdigest()}", f"sha256:{inner.hexdigest()}", path.stat().st_size)

    @classmethod
    def written(cls, path: Path, tar: bytes) -> Layer:
        """Gzip `tar` into `path`; the same bytes give the same digest on any day."""
        path.write_bytes(gzip.compress(tar, compresslevel=6, mtime=0))
        return cls.of(path)


@dataclass(frozen=True)
class Pushed:
    """What a push made: the name to pull, the digest of the index, and the digest of each platform's manifest."""

    name: str
    tag: str
    digest: str
    manifests: Mapping[str, str]
    image_ids: Mapping[str, str]


@dataclass(frozen=True)
class Registry:
    """A registry at `host` ("address:port"); `user` is empty where none is asked for."""

    host: str
    user: str = ""
    password: str = field(default="", repr=False)

    def reference(self, name: str, tag: str) -> str:
        return f"{self.host}/{name}:{tag}"

    def answers(self) -> bool:
        try:
            self._call("GET", "/v2/")
        except (OSError, LabError):
            return False
        return True

    def digest(self, name: str, reference: str) -> str | None:
        """Digest behind a tag (or a digest), None where there is none."""
        accept = {"Accept": f"{MANIFEST_LIST}, {MANIFEST}"}
        try:
            return self._call("HEAD", f"/v2/{name}/manifests/{reference}", headers=accept)[0]["docker-content-digest"]
        except LabError:
            return None

    def manifest(self, name: str, reference: str) -> dict[str, object]:
        """The manifest or the list of manifests behind a tag or digest."""
        accept = {"Accept": f"{MANIFEST_LIST}, {MANIFEST}"}
        body: dict[str, object] = json.loads(self._call("GET", f"/v2/{name}/manifests/{reference}", headers=accept)[1])
        return body

    def push(
        self,
        name: str,
        tag: str,
        layers: Sequence[Layer],
        *,
        entrypoint: Sequence[str] = (),
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        architectures: Sequence[str] = ("amd64", "arm64"),
    ) -> Pushed:
        """Put an image there under `tag`, as a list with one manifest for each architecture.

        All architectures share the layers: the lab runs on either, and none runs the other's.
        """
        for layer in layers:
            self._blob(name, layer.digest, layer.path)
        manifests: dict[str, tuple[str, int]] = {}
        ids: dict[str, str] = {}
        for architecture in architectures:
            config = _canonical(
                {
                    "architecture": architecture,
                    "os": "linux",
                    "created": "2026-01-01T00:00:00Z",
                    "config": {
                        "Entrypoint": list(entrypoint) or None,
                        "Cmd": list(command) or None,
                        "Env": [f"{key}={value}" for key, value in {"PATH": PATH, **(env or {})}.items()],
                        "Labels": dict(labels or {}),
                    },
                    "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
                    "history": [{"created_by": "sparkops-lab"} for _ in layers],
                }
            )
            ids[architecture] = _digest(config)
            self._blob(name, ids[architecture], config)
            manifest = _canonical(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"mediaType": CONFIG, "size": len(config), "digest": ids[architecture]},
                    "layers": [{"mediaType": LAYER, "size": layer.size, "digest": layer.digest} for layer in layers],
                }
            )
            manifests[architecture] = (self._put_manifest(name, _digest(manifest), manifest, MANIFEST), len(manifest))
        index = _canonical({"schemaVersion": 2, "mediaType": MANIFEST_LIST, "manifests": _entries(manifests)})
        digest = self._put_manifest(name, tag, index, MANIFEST_LIST)
        return Pushed(name, tag, digest, {key: value[0] for key, value in manifests.items()}, ids)

    def _put_manifest(self, name: str, reference: str, body: bytes, kind: str) -> str:
        self._call("PUT", f"/v2/{name}/manifests/{reference}", body=body, headers={"Content-Type": kind})
        return _digest(body)

    def _blob(self, name: str, digest: str, content: bytes | Path) -> None:
        """Upload a blob that isn't there yet."""
        try:
            self._call("HEAD", f"/v2/{name}/blobs/{digest}")
        except LabError:
            opened, _ = self._call("POST", f"/v2/{name}/blobs/uploads/", body=b"")
            location = opened["location"]
            joint = "&" if "?" in location else "?"
            body = content.read_bytes() if isinstance(content, Path) else content
            headers = {"Content-Type": "application/octet-stream"}
            self._call("PUT", f"{location}{joint}digest={digest}", body=body, headers=headers, timeout=600)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> tuple[dict[str, str], bytes]:
        url = path if path.startswith("http://") else f"http://{self.host}{path}"
        request = urllib.request.Request(url, data=body, method=method, headers=dict(headers or {}))
        if self.user:
            request.add_header(
                "Authorization", "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            )
        try:
            with _DIRECT.open(request, timeout=timeout) as answer:
                return {key.lower(): value for key, value in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as refused:
            said = refused.read()[:500].decode(errors="replace")
            raise LabError(f"{method} {url}: {refused.code} {said}") from refused


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def instance(name: str, address: str) -> Registry:
    """The lab's registry of that name (see INSTANCES)."""
    host = f"{address}:{INSTANCES[name]}"
    return Registry(host, USER, PASSWORD) if name == "private-registry" else Registry(host)


def start(state: Path, cache: Path, address: str) -> None:
    """Start those registries that don't run, and wait until they answer."""
    for name, port in INSTANCES.items():
        if Daemon.load(state / f"{name}.json") is not None:
            continue
        config = state / f"{name}.yml"
        config.write_text(_settings(f"{address}:{port}", cache / "registry", _passwords(state, name)))
        pid = machine.start_daemon(["docker-registry", "serve", str(config)], state / f"{name}.log")
        if not machine.wait_until(instance(name, address).answers, 90):
            raise LabError(f"{name} does not answer: {(state / f'{name}.log').read_text()[-800:]}")
        Daemon.of(pid).save(state / f"{name}.json")


def _passwords(state: Path, name: str) -> Path | None:
    if name != "private-registry":
        return None
    path = state / "htpasswd"
    path.write_text(f"{USER}:{PASSWORD_BCRYPT}\n")
    return path


def _settings(listen: str, storage: Path, passwords: Path | None) -> str:
    """The registry's configuration; JSON is YAML."""
    auth = {"auth": {"htpasswd": {"realm": "sparkops-lab", "path": str(passwords)}}} if passwords else {}
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
            "http": {"addr": listen},
            **auth,
        }
    )


def _entries(manifests: Mapping[str, tuple[str, int]]) -> list[dict[str, object]]:
    return [
        {"mediaType": MANIFEST, "size": size, "digest": digest, "platform": {"architecture": name, "os": "linux"}}
        for name, (digest, size) in manifests.items()
    ]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
