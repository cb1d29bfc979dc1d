"""A checkpoint in a folder on a node: exactly the files of one commit of a hub's repository, proven by their hashes.

What the commit holds is learnt in `prepare`; without it the declared state is unknown. Content comes from the hub by
the node itself, or is pushed by the controller; what lies on the node already is proven and taken over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from sparkops.checkpoints.hub import Hub, is_address
from sparkops.checkpoints.manifest import Manifest, is_commit, is_repository
from sparkops.core.errors import ConvergeFailed, InventoryError
from sparkops.core.messages import Fields
from sparkops.core.plan import Step, Violation
from sparkops.core.secrets import Secret
from sparkops.core.states import Observed, State, Unknown
from sparkops.core.system_places import fault_of_folder
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.resource import Peers
from sparkops.resources.transfers.transferable import Transferable

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

CACHES = ("~/.cache/huggingface",)
"""Where the node is looked through for what is there already, unless `adopt` says otherwise."""
MANNER = {"connections": 3, "segment": 32 << 20}
"""How a receiver fetches: a few streams side by side in one file, so that files are proven, and passed on, in turn."""
CHUNK = 256 << 10
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class OfRepository(Transferable):
    """A folder on a node whose files are those of one commit of a hub's repository, or made of them.

    `name` is the folder's absolute path on the node.

    repository: ORG/NAME on the hub.
    revision: a branch, a tag or a full commit.
    commit: the full commit that the lock file has for the revision; it wins.
    endpoint: the hub; "" means HF_ENDPOINT of the controller, else the public one.
    token: a secret; sent to the hub's origin only.
    only: `all` files, or `indexed`: of the weights only those that the model's index names.
    include, exclude: patterns of paths, as the hub's client has them; applied after `only`.
    owner: the account that owns the files and fetches them; "" is the present owner, else the user who connects.
    verify: `changed` hashes what has changed since it was last hashed, `deep` also what was hashed over a day ago.
    state_dir: sparkops' folder on the node.
    connections: parallel connections to the hub.
    segment: bytes of one range request.
    stall: seconds without data that end a try.
    """

    prune: ClassVar[Literal["collect"]] = "collect"
    at_path: ClassVar[bool] = True
    volatile: ClassVar[frozenset[str]] = frozenset({"hashed", "extra"})
    reads: ClassVar[Mapping[str, str]] = {"barred": "mapping", "extra": "list of text"}
    contained: ClassVar[bool] = True
    leavable: ClassVar[bool] = True

    repository: str
    revision: str = "main"
    commit: str = ""
    endpoint: str = ""
    token: str | Secret | None = None
    only: str = "all"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    owner: str = ""
    verify: str = "changed"
    state_dir: str = "/var/lib/sparkops"
    connections: int = 6
    segment: int = 64 * MIB
    stall: float = 30.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        validators.path(self.name, "the folder of a checkpoint", self.where)
        if id := fault_of_folder(self.name, self.state_dir):
            raise InventoryError.of(id, where=self.where, folder=self.name)
        if not isinstance(self.repository, str) or not is_repository(self.repository):
            raise InventoryError.of("hub-repository-name-invalid", where=self.where, repository=self.repository)
        if self.endpoint and not is_address(self.endpoint):
            raise InventoryError.of("hub-endpoint-invalid", where=self.where, endpoint=self.endpoint)
        if self.commit and not is_commit(self.commit):
            raise InventoryError.of("commit-invalid", where=self.where, commit=self.commit)
        validators.one_of(self.only, "only", ("all", "indexed"), self.where)
        validators.one_of(self.verify, "verify", ("changed", "deep"), self.where)
        put(self, "revision", str(self.revision))
        for key in ("include", "exclude"):
            put(self, key, validators.words(getattr(self, key), key, self.where))
        put(self, "owner", validators.account(self.owner or None, "owner", self.where) or "")
        token = Secret(self.token, "token") if isinstance(self.token, str) and self.token else self.token or None
        put(self, "token", token)

    def uses(self) -> Mapping[str, Collection[str]]:
        return {"folders": [self.name]}

    @property
    def hub(self) -> Hub:
        """The hub that it comes from."""
        return Hub(self.endpoint, self.token if isinstance(self.token, Secret) else None)

    @property
    def pinned(self) -> str:
        """The declared commit; "" for a branch or tag."""
        return self.commit or (self.revision if is_commit(self.revision) else "")

    def learn(self) -> tuple[Manifest, str, Message | None]:
        """The declared files, the repository's new name where it has one, and what `only` leaves out.

        The hub is asked for a branch or tag each time, for a commit only once. Raises HubError.
        """
        pinned, moved = self.pinned, ""
        hub = self.hub
        if not pinned:
            resolved = hub.resolve(self.repository, self.revision)
            pinned, moved = resolved.commit, resolved.moved_to
        whole = hub.manifest(self.repository, pinned)
        manifest = hub.indexed(whole) if self.only == "indexed" else whole
        return manifest.chosen(self.include, self.exclude), moved, _left_out(whole, manifest)

    @property
    def replaceable(self) -> bool:
        """Replacing is reading and hashing every byte again; what is not as it should be is made anew."""
        return True

    def ask(self) -> dict[str, object]:
        return {
            "folder": self.name,
            "state_dir": self.state_dir,
            "owner": self.owner,
            "deep": self.verify == "deep",
        }

    def asking(self) -> dict[str, str]:
        """How the node asks the hub: `endpoint`, and `token` in plain text or ""."""
        token = self.token.reveal() if isinstance(self.token, Secret) else ""
        return {"endpoint": self.hub.endpoint, "token": token}

    @property
    def manner(self) -> dict[str, object]:
        """How the node fetches."""
        return {"connections": self.connections, "segment": self.segment, "stall": self.stall}

    @property
    def listed_paths(self) -> Collection[str]:
        """The paths that are declared to be in the folder, as far as they are known here."""
        return ()

    def notices(self, found: Observed) -> tuple[Message, ...]:
        """A folder of somebody else, and files in it that no manifest names and an engine may load all the same."""
        if not isinstance(found, Mapping):
            return ()
        said = [Message.of("checkpoint-folder-foreign", folder=self.name)] if found.get("strange") else []
        extra = [path for path in found.get("extra", ()) if path not in self.listed_paths]
        if extra and (self.listed_paths or not found.get("strange")):
            said.append(Message.of("checkpoint-foreign-files", folder=self.name, files=extra))
        return tuple(said)

    def violations(self, found: Observed, peers: Peers) -> tuple[Violation, ...]:
        """A place that only the node knows to be taken."""
        barred = found.get("barred") if isinstance(found, Mapping) else None
        return (self.violation(Message.from_json(barred)),) if barred else ()

    def proven(self, found: Mapping[str, object]) -> bool:
        return not any(found.get(key) for key in ("missing", "wrong", "unverified"))

    def received(self, act: Fields, peer: Mapping[str, object] | None) -> dict[str, object]:
        return {**super().received(act, peer), "manner": {**act["manner"], **MANNER}}


@dataclass(frozen=True, kw_only=True)
class Checkpoint(OfRepository):
    """The repository's files themselves.

    source: `hub`, fetched by the node itself (through HTTPS_PROXY of its environment, if any), or `push`, streamed by
        the controller out of `local`, its Hugging Face cache, or the hub.
    local: a folder here with the files that `push` sends.
    adopt: folders and Hugging Face caches on the node to look into; `~` is the owner's home.
    manifest, moved_to, left_out: not declared but learnt by `prepare`.
    """

    kind: ClassVar[str] = "checkpoint"
    removed_with: ClassVar[str] = "--checkpoints"
    implied: ClassVar[frozenset[str]] = frozenset({"manifest", "missing", "wrong", "unverified", "leftover"})
    lacked: ClassVar[frozenset[str]] = frozenset({"manifest", "missing", "wrong"})

    source: str = "hub"
    local: str = ""
    adopt: tuple[str, ...] = CACHES
    manifest: Manifest | None = field(default=None, repr=False, compare=False)
    moved_to: str = field(default="", repr=False, compare=False)
    left_out: Message | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        validators.one_of(self.source, "source", ("hub", "push"), self.where)
        object.__setattr__(self, "adopt", validators.words(self.adopt, "adopt", self.where))

    @property
    def listed_paths(self) -> Collection[str]:
        return frozenset(file.path for file in self.manifest.files) if self.manifest is not None else ()

    def prepare(self) -> Checkpoint:
        """With its manifest. Raises HubError."""
        manifest, moved_to, left_out = self.learn()
        return dataclasses.replace(self, manifest=manifest, moved_to=moved_to, left_out=left_out)

    @property
    def transfer_key(self) -> str:
        return self.manifest.digest if self.manifest is not None else ""

    @property
    def served(self) -> Mapping[str, object]:
        assert self.manifest is not None
        files = [[file.path, file.size, file.oid] for file in self.manifest.files]
        return {"folder": self.name, "state_dir": self.state_dir, "owner": self.owner, "files": files}

    def desired(self) -> State:
        if self.manifest is None:
            return {"manifest": Unknown.of("hub-not-asked", repository=f"{self.repository}@{self.revision}")}
        wanted: dict[str, object] = {
            "repository": self.repository,
            "commit": self.manifest.commit,
            "manifest": self.manifest.digest,
            "size": self.manifest.size,
            "missing": [],
            "wrong": [],
            "unverified": [],
            "leftover": "",
        }
        if self.owner:
            wanted["owner"] = self.owner
        return wanted

    def act(self, step: Step) -> dict[str, object]:
        if self.manifest is None:
            return {}
        return {
            "manifest": self.manifest.canonical,
            "digest": self.manifest.digest,
            "mode": "fetch" if self.source == "hub" else "staged",
            "again": step.action == "replace",
            "adopt": list(self.adopt),
            "hub": self.asking() if self.source == "hub" else {**self.asking(), "token": ""},
            "manner": self.manner,
        }

    def notices(self, found: Observed) -> tuple[Message, ...]:
        notices = [*super().notices(found)]
        if self.moved_to:
            notices.append(
                Message.of("hub-repository-renamed", resource=self.id, old=self.repository, new=self.moved_to)
            )
        held = found.get("manifest") if isinstance(found, Mapping) else None
        if self.left_out and self.manifest is not None and held != self.manifest.digest:
            notices.append(self.left_out)
        return tuple(notices)

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """Fetched by the node; with `source: push`, streamed to it first, from where the last push ended."""
        if self.source == "push" and step.after is not None and self.manifest is not None:
            yield from self._push(session, self.act(step))
        return (yield from super().converge(session, step))

    def received(self, act: Fields, peer: Mapping[str, object] | None) -> dict[str, object]:
        return {**super().received(act, peer), "mode": "fetch", "hub": {**act["hub"], "token": ""}}

    def _push(self, session: Session, act: Mapping[str, object]) -> Generator[Mapping[str, object], None, None]:
        answer = yield from session.stream("checkpoint.missing", {"ask": self.ask(), "act": dict(act)})
        missing = [(str(path), int(size), str(oid), int(pushed)) for path, size, oid, pushed in answer]
        total = sum(size for _, size, _, _ in missing)
        done = 0
        for number, (path, size, oid, pushed) in enumerate(missing, 1):
            text = f"pushing {path} ({number} of {len(missing)})"
            yield {"text": text, "done": done + pushed, "total": total}
            content = {"folder": self.name, "oid": oid, "size": size, "offset": pushed}
            for progress in session.send("checkpoint.put", content, _chunks(self._local(path, size), pushed)):
                yield {"text": text, "done": done + (progress.get("done") or 0), "total": total}
            done += size

    def _local(self, path: str, size: int) -> Path:
        """The file on this machine. What it holds is proven on the node."""
        assert self.manifest is not None
        if not self.local:
            return self.hub.download(self.repository, self.manifest.commit, path)
        found = Path(self.local).expanduser() / path
        if not found.is_file() or found.stat().st_size != size:
            raise ConvergeFailed.of(
                "local-file-missing",
                where=self.where,
                path=str(found),
                size=size,
                repository=self.repository,
                commit=self.manifest.commit[:12],
            )
        return found


def _left_out(whole: Manifest, manifest: Manifest) -> Message | None:
    """What `only` leaves out."""
    kept = {file.path for file in manifest.files}
    out = [file.path for file in whole.files if file.path not in kept]
    size = whole.size - manifest.size
    args = {"repository": whole.repository, "size": size, "files": out}
    return Message.of("checkpoint-files-left-out", **args) if out else None


def _chunks(path: Path, offset: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(CHUNK):
            yield data
