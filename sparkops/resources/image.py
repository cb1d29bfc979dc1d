"""The kind `image`: a container image on a node, pulled from a registry, built there, or loaded from an archive.

Pulled, it is identified by the digest of the registry's index and, where the engine tells it, of the platform's
manifest; built, by a label with the hash of everything that goes in, known before anything is built; loaded, by its
ordered layers and configuration. Never by its name alone when more is declared, and never by the engine's image id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sparkops.core.errors import ConvergeFailed, InventoryError
from sparkops.core.plan import Step, Violation
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Observed, State, Unknown
from sparkops.resources import validators
from sparkops.resources.image_archive import Archive, read_archive
from sparkops.resources.resource import Peers, Resource
from sparkops.resources.transferable import Passed

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

LABEL = "sparkops.build"
CHUNK = 256 << 10
CONTEXT_LIMIT = 32 << 20
"""Bytes of all files of a build together: they travel in one frame. What is larger belongs into the base image."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name of an image, in parts. `repository` is as Docker shows it: without `docker.io/` and `library/`."""

    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str, where: str = "") -> Reference:
        """`repo`, `repo:tag`, `repo@sha256:…` or `repo:tag@sha256:…`. Raises InventoryError."""
        rest, at, digest = str(text).partition("@")
        head, colon, tag = rest.rpartition(":")
        tagged = bool(colon) and "/" not in tag
        if not tagged:
            head, tag = rest, ""
        for prefix in ("docker.io/", "index.docker.io/"):
            head = head.removeprefix(prefix)
        head = head.removeprefix("library/")
        good = _REPOSITORY.fullmatch(head) and (not tagged or _TAG.fullmatch(tag))
        if not good or (at and not _DIGEST.fullmatch(digest)):
            raise InventoryError(
                f"{text!r} is no name of an image",
                where=where,
                hint="write registry/name:tag or registry/name@sha256:…, the name in lower case",
            )
        return cls(head, tag or ("" if digest else "latest"), digest)

    @property
    def name(self) -> str:
        """The name by which an engine finds it; a digest is stronger than a tag."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


@dataclass(frozen=True, kw_only=True)
class Image(Passed):
    """An image. `name` is the reference to have: `repo:tag`, `repo@sha256:…`; of a build or an archive the tag to give.

    Pulled: `digest` pins the index (a tag without one is content with whatever is there), `manifest` the platform's own
    manifest; `platform` (`linux/arm64`) is the node's own unless declared. `server`, `username`, `password` log in for
    this pull and are stored nowhere.

    Built, where `content` is a Dockerfile: `files` maps paths in the build context (a first slash is dropped) to text,
    or to `{file: PATH}` (a folder is taken whole); `args`, `labels`; `checks` are argument lists, each run in the built
    image before it gets its name. The engine's own builder is used, which knows no `RUN --mount` and no here-documents.

    Loaded, where `archive` is a file made by `docker save`, sent from here. Relative paths start at `folder`.
    """

    kind: ClassVar[str] = "image"
    prune: ClassVar[Literal["collect"]] = "collect"
    volatile: ClassVar[frozenset[str]] = frozenset({"size"})
    contained: ClassVar[bool] = True
    leavable: ClassVar[bool] = True
    implied: ClassVar[frozenset[str]] = frozenset({"reference", "fits"})
    lacked: ClassVar[frozenset[str]] = frozenset({"build", "fits"})
    streamed: ClassVar[bool] = False
    alternative: ClassVar[str] = "it is built or pulled there too"

    digest: str | None = None
    manifest: str | None = None
    platform: str | None = None
    server: str | None = None
    username: str | Secret | None = None
    password: str | Secret | None = field(default=None, repr=False)
    archive: str | None = None
    content: str | Content | Secret | None = field(default=None, repr=False)
    files: Mapping[str, Any] = field(default_factory=dict, repr=False)
    args: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Sequence[str]] = ()
    folder: str = "."
    state: str = "present"
    bases: tuple[Reference, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        put, where = object.__setattr__, self.where
        reference = Reference.parse(self.name, where)
        validators.one_of(self.state, "state", ("present", "absent"), where)
        for what in ("digest", "manifest"):
            if (value := getattr(self, what)) is not None and not _DIGEST.fullmatch(str(value)):
                raise InventoryError(
                    f"{what} is {value!r}", where=where, hint="write sha256: and 64 hexadecimal digits"
                )
        if self.digest and reference.digest and self.digest != reference.digest:
            raise InventoryError(f"{self.name} and digest {self.digest} contradict each other", where=where)
        dockerfile = _dockerfile(self.content, where)
        put(self, "content", dockerfile)
        put(self, "files", _files(self.files or {}, Path(self.folder), where))
        put(self, "args", _texts(self.args or {}, "args", where))
        put(self, "labels", _texts(self.labels or {}, "labels", where))
        put(self, "checks", tuple(validators.words(each, "a check", where) for each in self.checks or ()))
        put(self, "bases", _bases(dockerfile or "", where))
        self._check_sources(reference)

    def _check_sources(self, reference: Reference) -> None:
        if self.content is not None and self.archive:
            raise InventoryError("an image is built or loaded from an archive, not both", where=self.where)
        if (self.content is not None or self.archive) and reference.digest:
            raise InventoryError(
                f"{self.name} names a digest, which only a registry gives", where=self.where, hint="give it a tag"
            )
        if (self.username is None) != (self.password is None):
            raise InventoryError(
                "a registry is logged in to with username and password", where=self.where, hint="declare both or none"
            )

    @property
    def reference(self) -> Reference:
        return Reference.parse(self.name)

    @property
    def pinned(self) -> str | None:
        """The declared digest of the index."""
        return self.digest or self.reference.digest or None

    @property
    def build(self) -> str:
        """The hash of everything that goes into a build: equal inputs are the same image; "" where none is built."""
        if self.content is None:
            return ""
        told = {
            "dockerfile": str(self.content),
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()},
            "args": dict(self.args),
            "labels": dict(self.labels),
            "checks": [list(each) for each in self.checks],
            "platform": self.platform,
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def passable(self) -> str:
        """A build by its hash; of what is pulled only a tag that nothing pins, as a loaded image has no digest."""
        if self.state == "absent" or self.archive:
            return ""
        if self.content is not None:
            return self.build
        return "" if self.pinned or self.manifest else f"{self.reference.name} {self.platform or ''}"

    @property
    def passing(self) -> Mapping[str, Any]:
        return {**self.ask(), "build": self.build}

    def received(self, act: Mapping[str, Any], peer: Mapping[str, Any] | None) -> dict[str, Any]:
        return super().received({"how": "receive", "attach": act["attach"], "build": self.build}, peer)

    def uses(self) -> Mapping[str, Collection[str]]:
        return {
            "images": [self.name, *(base.name for base in self.bases)],
            "builds": [self.build] if self.build else [],
        }

    def prepare(self) -> Resource:
        """Read the archive's table of contents. Raises InventoryError where it is no archive of one image."""
        if self.archive and self.state == "present":
            self._archive()
        return self

    def _archive(self) -> Archive:
        assert self.archive is not None
        return read_archive(Path(self.folder, self.archive), self.where)

    @property
    def common(self) -> bool:
        """An image is what it is, whoever uses it."""
        return True

    def sources(self) -> Mapping[str, str]:
        if not self.archive or self.state == "absent":
            return {}
        archive = self._archive()
        told = json.dumps([archive.layers, archive.config], sort_keys=True, default=str)
        return {f"archive {self.archive}": "sha256:" + hashlib.sha256(told.encode()).hexdigest()}

    @property
    def replaceable(self) -> bool:
        """Replacing is pulling, building or loading it again: a tag may have moved."""
        return self.state == "present"

    def ask(self) -> dict[str, Any]:
        reference = self.reference
        asked: dict[str, Any] = {
            "name": reference.name,
            "repository": reference.repository,
            "tag": reference.tag,
            "digest": self.pinned,
            "manifest": self.manifest,
            "platform": self.platform,
        }
        if self.archive and self.state == "present":
            archive = self._archive()
            asked["like"] = {"layers": list(archive.layers), "config": dict(archive.config)}
        return asked

    def desired(self) -> State:
        if self.state == "absent":
            return None
        wanted: dict[str, Any] = {"reference": self.reference.name, "fits": True}
        if self.content is not None:
            return {**wanted, "build": self.build}
        if self.archive:
            return {**wanted, "archive": "declared"}
        if self.pinned:
            wanted["digest"] = self.pinned
        if self.manifest:
            wanted["manifest"] = self.manifest
        return wanted

    def same(self, key: str, wanted: Any, found: Any) -> bool:
        """Equality; a platform's manifest that the engine does not tell is not held against it."""
        return bool(wanted == found or (key == "manifest" and found is None))

    def act(self, step: Step) -> dict[str, Any]:
        if step.action == "delete":
            return {}
        if self.archive:
            return {"how": "load", "size": self._archive().size}
        given: dict[str, Any] = {"how": "pull", "auth": self._login(), "attach": self.pinned or self.platform or ""}
        if self.content is not None:
            given.update(
                how="build",
                attach=self.build,
                dockerfile=str(self.content),
                files=dict(self.files),
                args=dict(self.args),
                labels={**self.labels, LABEL: self.build},
                checks=[list(each) for each in self.checks],
                bases=[
                    {"name": each.name, "repository": each.repository, "tag": each.tag, "digest": each.digest or None}
                    for each in self.bases
                ],
            )
        return given

    def _login(self) -> dict[str, str] | None:
        if self.username is None or self.password is None:
            return None
        source = self.bases[0] if self.bases else self.reference
        host, slash, _ = source.repository.partition("/")
        own = host if slash and (set(host) & {".", ":"} or host == "localhost") else "https://index.docker.io/v1/"
        return {
            "server": self.server or own,
            "username": _revealed(self.username),
            "password": _revealed(self.password),
        }

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, Any], None, Observed]:
        """As every kind, or from the node before it; an archive is sent along, and its bytes count as progress."""
        if self.upstream is not None and step.after is not None:
            return (yield from self.receive(self.upstream, session, step))
        if not self.archive or step.action == "delete":
            return (yield from super().converge(session, step))
        answer = yield from session.send("converge", self.order(session, step), _chunks(self._archive().path))
        return self.converged_to(answer)

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """One tag that is different images on the nodes of one service, where nothing declared tells which is meant."""
        if not isinstance(found, Mapping) or self.pinned or self.content is not None or self.archive:
            return ()
        others = {node: peers(f"{self.kind} {self.name} @{node}") for node in self.peer_nodes if node != self.node}
        differ = [
            node
            for node, other in others.items()
            if isinstance(other, Mapping) and other.get("content") != found.get("content")
        ]
        if not differ:
            return ()
        return (
            Violation(
                id="image-differs",
                resource=self.id,
                node=self.node,
                severity="error",
                message=f"{self.name} is another image here than on {', '.join(differ)}",
                remedy="pin it with image.digest, or run sparkops lock; the tag has moved between two pulls",
            ),
        )

    def notices(self, found: Observed) -> tuple[str, ...]:
        """What can't be compared, and bases whose move would not be seen."""
        said = [
            f"{self.name} is built from {each.name}, which is not pinned: a base that moves is not seen"
            for each in self.bases
            if not each.digest
        ]
        if self.manifest and isinstance(found, Mapping) and found.get("manifest") is None:
            said.append(f"{self.name}: this node's Docker does not tell the platform's manifest; the index is compared")
        return tuple(said)

    def explain(self, found: Observed) -> str:
        """Words for an image that stayed another one."""
        if isinstance(found, Unknown) or found is None:
            return ""
        if not found.get("fits", True):
            return f"it is for {found.get('platform')}, which this node does not run"
        return ""


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ConvergeFailed(f"{path}: {error.strerror}") from None


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _dockerfile(value: Any, where: str) -> str | None:
    text = value.text if isinstance(value, Content) else value
    if isinstance(text, Secret):
        raise InventoryError(
            "a secret stands in a Dockerfile, where every user of the image could read it",
            where=where,
            hint="hand it to the service as an environment variable instead",
        )
    return None if text is None else str(text)


def _bases(dockerfile: str, where: str) -> tuple[Reference, ...]:
    """The images that a Dockerfile begins from, its own stages left out."""
    stages: set[str] = {"scratch"}
    found: dict[Reference, None] = {}
    for base, stage in _FROM.findall(dockerfile):
        if base not in stages and "$" not in base:
            found[Reference.parse(base, where)] = None
        stages.add(stage)
    return tuple(found)


def _texts(value: Mapping[str, Any], what: str, where: str) -> dict[str, str]:
    found = {}
    for key, each in value.items():
        if isinstance(each, Secret):
            raise InventoryError(f"a secret stands in {what}.{key}; it would stay readable in the image", where=where)
        found[str(key)] = each if isinstance(each, str) else json.dumps(each)
    return found


def _files(value: Mapping[str, Any], folder: Path, where: str) -> dict[str, bytes]:
    """The build context by path, read and bounded. Raises InventoryError."""
    found: dict[str, bytes] = {}
    for path, each in value.items():
        name = str(path).lstrip("/")
        if not name or ".." in Path(name).parts or name == "Dockerfile":
            raise InventoryError(f"{path!r} is no path of a file in a build", where=where, hint="write it without ..")
        if isinstance(each, bytes):
            found[name] = each
        elif isinstance(each, str):
            found[name] = each.encode()
        elif isinstance(each, Mapping) and isinstance(each.get("file"), str):
            found.update(_read(name, folder / each["file"], where))
        else:
            raise InventoryError(f"files: {path} is {each!r}", where=where, hint="give text, or {file: PATH}")
    if sum(map(len, found.values())) > CONTEXT_LIMIT:
        raise InventoryError(
            f"the files of the build are over {CONTEXT_LIMIT >> 20} MiB",
            where=where,
            hint="put them into the base image",
        )
    return dict(sorted(found.items()))


def _read(name: str, path: Path, where: str) -> dict[str, bytes]:
    try:
        if not path.is_dir():
            return {name: path.read_bytes()}
        inner = sorted(each for each in path.rglob("*") if each.is_file() and not each.is_symlink())
        return {f"{name.rstrip('/')}/{each.relative_to(path).as_posix()}": each.read_bytes() for each in inner}
    except OSError as error:
        raise InventoryError(
            f"{path}: {error.strerror}", where=where, hint="files stand beside the inventory"
        ) from None
