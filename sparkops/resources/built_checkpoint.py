"""A checkpoint that is built on a node by declared steps, out of another checkpoint there and tensors of donors.

What base and donors hold is learnt in `prepare`; with the steps it makes the identity, so that it is known before
anything is built whether the folder on the node is the declared one. The building itself is the worker's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar

from sparkops.checkpoints.hub import HubError
from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile, is_commit
from sparkops.core.errors import InventoryError
from sparkops.core.plan import Step
from sparkops.core.states import Observed, State, Unknown
from sparkops.models import build_steps
from sparkops.models.argv import canonical
from sparkops.resources import validators
from sparkops.resources.checkpoint import OfRepository

BUILDER = 1
"""Counts up when the same steps make other bytes: what was built before is then built anew."""


@dataclass(frozen=True, kw_only=True)
class BuiltCheckpoint(OfRepository):
    """`name` is the folder of the built one; repository, commit, include and exclude are those of its base.

    base: the folder of the base on the node, a declared `checkpoint`.
    steps: as the role `checkpoint` declares them: `({"hybrid": {"donor": …}}, {"lm_head": "int8"})`.
    """

    kind: ClassVar[str] = "built_checkpoint"
    implied: ClassVar[frozenset[str]] = frozenset({"identity", "missing", "wrong", "unverified", "leftover"})
    lacked: ClassVar[frozenset[str]] = frozenset({"identity", "missing", "wrong"})
    streamed: ClassVar[bool] = False
    alternative: ClassVar[str] = "it is built there too"

    base: str
    steps: tuple[Mapping[str, Any], ...]
    manifest: Manifest | None = field(default=None, init=False, repr=False, compare=False)
    """The base's."""
    donors: tuple[Manifest, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        validators.path(self.base, "the base of a built checkpoint", self.where)
        object.__setattr__(self, "steps", tuple(self.steps))
        name, base = PurePosixPath(self.name), PurePosixPath(self.base)
        if name.is_relative_to(base) or base.is_relative_to(name):
            how = f"its own base {base}" if name.is_relative_to(base) else f"a folder that holds its own base {base}"
            raise InventoryError(
                f"{name} can't be built into {how}", where=self.where, hint="name another folder for what is built"
            )
        for fault in (*build_steps.unformed(self.steps), *build_steps.faults(self.steps)):
            raise InventoryError(fault.what, where=self.where, hint=fault.hint)
        if not self.steps:
            raise InventoryError(f"{self.name} is built by no step", where=self.where, hint="declare its steps")

    @property
    def moving(self) -> tuple[build_steps.Donor, ...]:
        """The donors that are declared by a branch or tag."""
        found = build_steps.donors(self.steps)
        return tuple(each for each in found if not each.commit and not is_commit(each.revision))

    def prepare(self) -> BuiltCheckpoint:
        """With what base and donors hold. Raises HubError."""
        return self.ready(self.learn()[0])

    def ready(self, base: Manifest | None) -> BuiltCheckpoint:
        """With this base (None: it is not known yet) and what the donors hold. Raises HubError."""
        found = dataclasses.replace(self)
        object.__setattr__(found, "manifest", base)
        object.__setattr__(found, "donors", tuple(map(self._donor, build_steps.donors(self.steps))))
        return found

    def of_files(self, commit: str, files: Sequence[Sequence[Any]]) -> BuiltCheckpoint:
        """With a base that was hashed where it lies: `files` as [path, size, oid]. Raises HubError, ManifestError."""
        return self.ready(self.listed(commit, files))

    def listed(self, commit: str, files: Sequence[Sequence[Any]]) -> Manifest:
        """Files that a node tells of ([path, size, oid]), checked. Raises ManifestError."""
        try:
            listed = tuple(ManifestFile(str(path), int(size), str(oid)) for path, size, oid in files)
        except (TypeError, ValueError):
            raise ManifestError("a list of files that can't be read", where=self.node) from None
        return Manifest(self.repository, commit if is_commit(commit) else "0" * 40, listed)

    def _donor(self, donor: build_steps.Donor) -> Manifest:
        commit = donor.commit or (donor.revision if is_commit(donor.revision) else "")
        try:
            commit = commit or self.hub.resolve(donor.repository, donor.revision).commit
            return self.hub.manifest(donor.repository, commit)
        except HubError as error:
            steps = " and ".join(build_steps.takers(self.steps, donor))
            what = f"the step {steps} takes weights from {donor.repository}@{donor.revision}: {error.what}"
            raise type(error)(what, where=error.where, hint=error.hint) from None

    @property
    def identity(self) -> str:
        """What goes into it, as one word; the same bytes come out of the same identity. Only of a prepared one."""
        assert self.manifest is not None
        told = {
            "builder": BUILDER,
            "base": self.manifest.digest,
            "donors": [donor.digest for donor in self.donors],
            "steps": build_steps.content(self.steps),
        }
        return "build:sha256:" + hashlib.sha256(canonical(told).encode()).hexdigest()

    @property
    def transfer_key(self) -> str:
        return self.identity if self.manifest is not None else ""

    @property
    def served(self) -> Mapping[str, Any]:
        ask = self.ask()
        return {**{key: ask[key] for key in ("folder", "state_dir", "owner")}, "identity": self.identity}

    def ask(self) -> dict[str, Any]:
        return {**super().ask(), "base": self.base}

    def desired(self) -> State:
        if self.manifest is None:
            return {"identity": Unknown(f"the hub was not asked for {self.repository}@{self.revision} and its donors")}
        wanted: dict[str, Any] = {
            "repository": self.repository,
            "commit": self.manifest.commit,
            "donors": [f"{donor.repository}@{donor.commit[:12]}" for donor in self.donors],
            "steps": [next(iter(step)) for step in self.steps],
            "identity": self.identity,
            "missing": [],
            "wrong": [],
            "unverified": [],
            "leftover": "",
        }
        return {**wanted, "owner": self.owner} if self.owner else wanted

    def act(self, step: Step) -> dict[str, Any]:
        if self.manifest is None:
            return {}
        return {
            **self.building(),
            "identity": self.identity,
            "base": {"manifest": self.manifest.digest, "files": _files(self.manifest)},
            "record": self.record,
            "again": step.action == "replace",
        }

    def received(self, act: Mapping[str, Any], peer: Mapping[str, Any] | None) -> dict[str, Any]:
        """With the files that the source says the built one consists of; like any list from outside, it is checked."""
        act = {**act, "donors": []}
        if peer is None:
            return super().received(act, None)
        listed = self.listed(self.manifest.commit if self.manifest else "", peer.get("files", ()))
        kept = {key: value for key, value in peer.items() if key != "files"}
        return {**super().received(act, kept), "files": _files(listed)}

    def building(self) -> dict[str, Any]:
        """What the node needs of donors and steps."""
        return {
            "donors": [self.source(donor) for donor in self.donors],
            "steps": build_steps.numbered(self.steps),
            "manner": self.manner,
        }

    def source(self, manifest: Manifest) -> dict[str, Any]:
        """A repository as the node reads parts of it."""
        told = {"repository": manifest.repository, "commit": manifest.commit, "manifest": manifest.digest}
        return {**told, "files": _files(manifest), "hub": self.asking()}

    @property
    def record(self) -> dict[str, Any]:
        """What the folder's record says beside its files."""
        assert self.manifest is not None
        donors = [
            {"repository": each.repository, "commit": each.commit, "manifest": each.digest} for each in self.donors
        ]
        built = {
            "identity": self.identity,
            "base": self.manifest.digest,
            "donors": donors,
            "steps": build_steps.numbered(self.steps),
            "builder": BUILDER,
        }
        return {"repository": self.repository, "commit": self.manifest.commit, "built": built}

    def explain(self, found: Observed) -> str:
        if isinstance(found, Mapping) and found.get("identity") == "" and not found.get("missing"):
            return f"the record in {self.name} is not the one that was published there; somebody edits it"
        return ""


def _files(manifest: Manifest) -> list[list[Any]]:
    return [[file.path, file.size, file.oid] for file in manifest.files]
