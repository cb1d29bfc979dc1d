"""A checkpoint that is built on a node by declared steps, out of another checkpoint there and tensors of donors.

`prepare` learns what base and donors hold; with the steps that makes the identity, so it is known before anything is
built whether the folder on the node is the declared one. The node builds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar

from sparkops.checkpoints.build_inputs import BuildInputs, file_list, resolve_donors
from sparkops.checkpoints.manifest import Manifest, ManifestError, ManifestFile, is_commit
from sparkops.core.errors import InventoryError
from sparkops.core.messages import Fields
from sparkops.core.plan import Step
from sparkops.core.states import Observed, State, Unknown
from sparkops.core.wording import Message
from sparkops.models import build_steps
from sparkops.resources import validators
from sparkops.resources.checkpoint import OfRepository


@dataclass(frozen=True, kw_only=True)
class BuiltCheckpoint(OfRepository):
    """`name` is the folder of the built one; repository, commit, include and exclude are those of its base.

    base: the folder of the base on the node, a declared `checkpoint`.
    steps: as the role `checkpoint` declares them: `({"hybrid": {"donor": …}}, {"lm_head": "int8"})`.
    manifest, donors: what base and donors hold; not declared but learnt by `prepare`.
    """

    kind: ClassVar[str] = "built_checkpoint"
    removed_with: ClassVar[str] = "--checkpoints"
    implied: ClassVar[frozenset[str]] = frozenset({"identity", "missing", "wrong", "unverified", "leftover"})
    lacked: ClassVar[frozenset[str]] = frozenset({"identity", "missing", "wrong"})
    streamed: ClassVar[bool] = False

    base: str
    steps: tuple[Mapping[str, object], ...]
    manifest: Manifest | None = field(default=None, repr=False, compare=False)
    donors: tuple[Manifest, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        validators.path(self.base, "the base of a built checkpoint", self.where)
        name, base = PurePosixPath(self.name), PurePosixPath(self.base)
        if name.is_relative_to(base) or base.is_relative_to(name):
            raise InventoryError.of("build-base-overlaps", where=self.where, folder=str(name), base=str(base))
        for fault in (*build_steps.unformed(self.steps), *build_steps.faults(self.steps)):
            raise InventoryError.of(fault.id, where=self.where, **fault.args)
        if not self.steps:
            raise InventoryError.of("build-without-steps", where=self.where, folder=self.name)

    @property
    def moving(self) -> tuple[build_steps.Donor, ...]:
        """The donors that are declared by a branch or tag."""
        found = build_steps.donors(self.steps)
        return tuple(each for each in found if not each.commit and not is_commit(each.revision))

    def prepare(self) -> BuiltCheckpoint:
        """With what base and donors hold. Raises HubError."""
        return dataclasses.replace(self, manifest=self.learn()[0], donors=resolve_donors(self.steps, self.hub))

    def listed(self, commit: str, files: Sequence[Sequence[Any]]) -> Manifest:
        """Files that a node lists ([path, size, oid]), checked. Raises ManifestError."""
        try:
            listed = tuple(ManifestFile(str(path), int(size), str(oid)) for path, size, oid in files)
        except (TypeError, ValueError):
            raise ManifestError.of("build-files-invalid", where=self.node) from None
        return Manifest(self.repository, commit if is_commit(commit) else "0" * 40, listed)

    @property
    def inputs(self) -> BuildInputs | None:
        """What goes into it; None until it is prepared."""
        if self.manifest is None:
            return None
        return BuildInputs(self.repository, self.manifest, self.donors, tuple(self.steps))

    @property
    def transfer_key(self) -> str:
        return self.inputs.identity if self.inputs is not None else ""

    @property
    def served(self) -> Mapping[str, object]:
        ask = self.ask()
        return {**{key: ask[key] for key in ("folder", "state_dir", "owner")}, "identity": self.transfer_key}

    def ask(self) -> dict[str, object]:
        return {**super().ask(), "base": self.base}

    def desired(self) -> State:
        if self.manifest is None or self.inputs is None:
            return {"identity": Unknown.of("hub-not-asked", repository=f"{self.repository}@{self.revision}")}
        wanted: dict[str, object] = {
            "repository": self.repository,
            "commit": self.manifest.commit,
            "donors": [f"{donor.repository}@{donor.commit[:12]}" for donor in self.donors],
            "steps": [next(iter(step)) for step in self.steps],
            "identity": self.inputs.identity,
            "missing": [],
            "wrong": [],
            "unverified": [],
            "leftover": "",
        }
        return {**wanted, "owner": self.owner} if self.owner else wanted

    def act(self, step: Step) -> dict[str, object]:
        if self.inputs is None:
            return {}
        return self.inputs.request(self.asking(), self.manner, again=step.action == "replace")

    def received(self, act: Mapping[str, object], peer: Fields | None) -> dict[str, object]:
        """With the files that the source lists; like any list from outside, it is checked."""
        act = {**act, "donors": []}
        if peer is None:
            return super().received(act, None)
        listed = self.listed(self.manifest.commit if self.manifest else "", peer.get("files", ()))
        source = {key: value for key, value in peer.items() if key != "files"}
        return {**super().received(act, source), "files": file_list(listed)}

    def explain(self, found: Observed) -> Message | None:
        if isinstance(found, Mapping) and found.get("identity") == "" and not found.get("missing"):
            return Message.of("build-record-changed", folder=self.name)
        return None
