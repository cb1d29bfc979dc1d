"""The kind `image`: a container image on a node, pulled from a registry, built there, or loaded from an archive.

Pulled, it is identified by the digest of the registry's index and, where the engine tells it, of the platform's
manifest; built, by a label with the hash of everything that goes in, known before anything is built; loaded, by its
ordered layers and configuration. Never by its name alone when more is declared, and never by the engine's image id.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sparkops.core.errors import ConvergeFailed, InventoryError
from sparkops.core.kind_messages import ImageAct, ImageAsk
from sparkops.core.plan import Step, Violation
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Observed, State
from sparkops.core.wording import Message
from sparkops.nodes.session import CallFailed
from sparkops.resources import validators
from sparkops.resources.images.build import BuiltImage
from sparkops.resources.images.origin import LoadedImage, PulledImage
from sparkops.resources.images.reference import Reference, is_digest
from sparkops.resources.resource import Peers, Resource
from sparkops.resources.transfers.transferable import Transferable

if TYPE_CHECKING:
    from sparkops.nodes.session import Session
    from sparkops.resources.images.registry import Login

CHUNK = 256 << 10


@dataclass(frozen=True, kw_only=True)
class Image(Transferable):
    """An image: pulled; built, where `content` is given; or loaded, where `archive` is.

    `name` is the reference to have: `repo:tag`, `repo@sha256:…`; of a build or an archive the tag to give. Without a
    login of its own a pull uses the controller's `docker login`. Builds use the engine's own builder, which knows no
    `RUN --mount` and no here-documents.

    digest: the index that a pull pins; a tag without one is content with whatever is there.
    manifest: the digest of the platform's own manifest.
    platform: like `linux/arm64`; the node's own unless declared.
    server, username, password: the login for this pull; stored nowhere.
    archive: a file made by `docker save`, sent from here.
    content: a Dockerfile.
    files: paths in the build context (a first slash is dropped) and their text, or `{file: PATH}`; a folder is taken
        whole, but for what its `.dockerignore` excludes.
    args: the build's arguments.
    labels: labels of what is built.
    checks: argument lists, each run in the built image before it gets its name.
    folder: where relative paths start.
    state: present or absent.
    """

    kind: ClassVar[str] = "image"
    removed_with: ClassVar[str] = "--images"
    prune: ClassVar[Literal["collect"]] = "collect"
    volatile: ClassVar[frozenset[str]] = frozenset({"size"})
    contained: ClassVar[bool] = True
    leavable: ClassVar[bool] = True
    implied: ClassVar[frozenset[str]] = frozenset({"reference", "fits"})
    lacked: ClassVar[frozenset[str]] = frozenset({"build", "fits"})
    streamed: ClassVar[bool] = False

    digest: str | None = None
    manifest: str | None = None
    platform: str | None = None
    server: str | None = None
    username: str | Secret | None = None
    password: str | Secret | None = field(default=None, repr=False)
    archive: str | None = None
    content: str | Content | Secret | None = field(default=None, repr=False)
    files: Mapping[str, object] = field(default_factory=dict, repr=False)
    args: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, object] = field(default_factory=dict)
    checks: Sequence[Sequence[str]] = ()
    folder: str = "."
    state: str = "present"

    def __post_init__(self) -> None:
        reference = Reference.parse(self.name, self.where)
        validators.one_of(self.state, "state", ("present", "absent"), self.where)
        for name, value in (("digest", self.digest), ("manifest", self.manifest)):
            if value is not None and not is_digest(str(value)):
                raise InventoryError.of("image-digest-invalid", where=self.where, field=name, value=str(value))
        if self.digest and reference.digest and self.digest != reference.digest:
            raise InventoryError.of("image-digests-differ", where=self.where, name=self.name, digest=self.digest)
        if self.content is not None and self.archive:
            raise InventoryError.of("image-built-and-loaded", where=self.where)
        if (self.content is not None or self.archive) and reference.digest:
            raise InventoryError.of("image-made-with-digest", where=self.where, name=self.name)
        if (self.username is None) != (self.password is None):
            raise InventoryError.of("image-login-incomplete", where=self.where)
        assert self.origin

    @cached_property
    def origin(self) -> PulledImage | BuiltImage | LoadedImage:
        """Where it comes from. Raises InventoryError for inputs of a build that can't be read or used."""
        if self.content is not None:
            return BuiltImage.read(
                self.name,
                self.content,
                files=self.files or {},
                args=self.args or {},
                labels=self.labels or {},
                checks=self.checks or (),
                platform=self.platform,
                folder=Path(self.folder),
                where=self.where,
            )
        if self.archive:
            return LoadedImage(path=Path(self.folder, self.archive), where=self.where)
        reference = self.reference
        return PulledImage(
            reference=reference,
            digest=self.digest or reference.digest or None,
            manifest=self.manifest,
            platform=self.platform,
        )

    @property
    def reference(self) -> Reference:
        return Reference.parse(self.name)

    @property
    def pinned(self) -> str | None:
        """The declared digest of the index."""
        return self.origin.digest

    @property
    def movable(self) -> bool:
        """Whether it is a tag that nothing pins."""
        return self.state == "present" and isinstance(self.origin, PulledImage) and not self.pinned

    @property
    def transfer_key(self) -> str:
        return "" if self.state == "absent" else self.origin.transfer_key

    @property
    def served(self) -> Mapping[str, object]:
        return {**self.ask(), "build": self.origin.build}

    def received(self, act: Mapping[str, object], peer: Mapping[str, object] | None) -> dict[str, object]:
        made: ImageAct = {"how": "receive", "attach": str(act["attach"]), "build": self.origin.build}
        return super().received(made, peer)

    def uses(self) -> Mapping[str, Collection[str]]:
        return {
            "images": [self.name, *(base.name for base in self.origin.bases)],
            "builds": [self.origin.build] if self.origin.build else [],
        }

    def prepare(self) -> Resource:
        """Read the archive's table of contents. Raises InventoryError where it is no archive of one image."""
        if isinstance(self.origin, LoadedImage) and self.state == "present":
            assert self.origin.archive
        return self

    @property
    def common(self) -> bool:
        """An image is what it is, whoever uses it."""
        return True

    def sources(self) -> Mapping[str, str]:
        return {} if self.state == "absent" else self.origin.sources()

    @property
    def replaceable(self) -> bool:
        """Replacing is pulling, building or loading it again: a tag may have moved."""
        return self.state == "present"

    def ask(self) -> ImageAsk:
        own = self.reference.as_json()
        own["digest"], own["manifest"], own["platform"] = self.pinned, self.manifest, self.platform
        if self.state == "present" and (like := self.origin.like) is not None:
            own["like"] = like
        return own

    def desired(self) -> State:
        if self.state == "absent":
            return None
        return {"reference": self.reference.name, "fits": True, **self.origin.desired()}

    def same(self, key: str, wanted: object, found: object) -> bool:
        """Equality; a platform's manifest that the engine does not report is not compared."""
        return bool(wanted == found or (key == "manifest" and found is None))

    def act(self, step: Step) -> ImageAct:
        return {} if step.action == "delete" else self.origin.arguments(self.login)

    def login(self, repository: str) -> Login | None:
        """The declared credentials where they are for this repository's registry, else those of `docker login`."""
        from sparkops.resources.images import registry  # loads Docker's SDK, which a plan does not need

        server = registry.server_of(repository)
        if self.username is not None and self.password is not None:
            first = self.origin.repositories[0]
            if repository == first or registry.same_server(self.server or registry.server_of(first), server):
                return registry.Login(self.server or server, _revealed(self.username), _revealed(self.password))
        return registry.docker_login(repository)

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """As every kind; an archive is sent along, and its bytes count as progress."""
        try:
            if not isinstance(self.origin, LoadedImage) or step.action == "delete":
                return (yield from super().converge(session, step))
            answer = yield from session.send("converge", self.order(session, step), _chunks(self.origin.path))
            return self.converged_to(answer)
        except CallFailed as error:
            if error.id != "image-not-in-registry":
                raise
            raise self._missing(error, str(error.args_by_name["repository"]), str(error.args_by_name["tag"])) from None

    def _missing(self, error: CallFailed, repository: str, tag: str) -> ConvergeFailed:
        """The error with the nearest tags, where the registry answers which there are."""
        from sparkops.resources.images import registry

        tags = registry.tags(repository, self.login(repository))
        if tags is None:
            return error
        name = error.args_by_name["name"]
        if not tags:
            return ConvergeFailed.of("image-repository-missing", where=self.node, name=name, repository=repository)
        near = registry.nearest(tag, tags)
        listed = [*near, *(each for each in tags if each not in near)]
        return ConvergeFailed.of("image-tag-missing", where=self.node, name=name, repository=repository, tags=listed)

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """One tag that is different images on the nodes of one service, where nothing declared tells which is meant."""
        if not isinstance(found, Mapping) or not isinstance(self.origin, PulledImage) or self.pinned:
            return ()
        others = {node: peers(f"{self.kind} {self.name} @{node}") for node in self.peer_nodes if node != self.node}
        differ = [
            node
            for node, other in others.items()
            if isinstance(other, Mapping) and other.get("content") != found.get("content")
        ]
        return (self.violation(Message.of("image-differs", name=self.name, nodes=differ)),) if differ else ()

    def notices(self, found: Observed) -> tuple[Message, ...]:
        return self.origin.notices(found)

    def explain(self, found: Observed) -> Message | None:
        """Why an image stayed another one."""
        if isinstance(found, Mapping) and not found.get("fits", True):
            return Message.of("image-for-other-platform", platform=found.get("platform"))
        return None


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ConvergeFailed.of("system-call-failed", path=str(path), text=error.strerror or str(error)) from None


def _revealed(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value
