"""A folder that is brought to hold a checkpoint: a program fills the staging folder as the owner, its caller publishes.

On a node the caller is a job of the worker as root, elsewhere a command as its user.
"""

import hashlib
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparkops.core.messages import Refused
from sparkops.programs import runner, users
from sparkops.programs.checkpoints import publish, whereabouts
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index, IndexListener
from sparkops.programs.checkpoints.verify import State
from sparkops.programs.progress import Reporter


@dataclass(frozen=True, slots=True)
class Target:
    """The folder: its names, what is published now (an open folder), its owner and its index."""

    place: CheckpointFolder
    existing: int | None
    owner: pwd.struct_passwd
    index: Index
    job: Reporter

    @classmethod
    def of(cls, query: State, request: State, job: Reporter) -> "Target":
        """That of `query`, which becomes its owner's. Raises Refused where it must not be replaced."""
        if request.get("attached"):
            raise Refused.of("transfer-just-ended", type="stale", folder=query["folder"])
        whereabouts.require(query["folder"], query["state_dir"])
        place = CheckpointFolder(query["folder"])
        existing = place.open()
        owner = users.owner_of(query["owner"], existing)
        os.makedirs(query["state_dir"], mode=0o700, exist_ok=True)
        target = cls(place, existing, owner, Index(query["state_dir"], place.path), job)
        if existing is not None:
            publish.hand_over(existing, target.previous, owner, target.index)
        return target

    @property
    def folders(self) -> list[int]:
        """The published folder, if there is one."""
        return [] if self.existing is None else [self.existing]

    @property
    def previous(self) -> list[str]:
        """The paths that the published record names."""
        return [path for each in self.folders for path, _, _ in record_of(each)[1].get("files", [])]

    def bring(self, program: str, spec: Mapping[str, Any], record: Callable[[State], str]) -> State:
        """Run a program on `spec` and the folders, and publish what it made; its result, with `notices`.

        `record(result)` is the index's `record` from then on. Raises Refused.
        """
        staging = self.place.stage(self.owner)
        listener = IndexListener(self.job, self.index)
        own = {"folder": self.place.path, "existing": self.existing, "previous": self.previous, "staging": staging}
        folders = [staging, *self.folders, *([spec["base"]] if "base" in spec else [])]
        try:
            done = dict(runner.run(program, {**spec, **own}, listener, user=self.owner, descriptors=folders))
        finally:
            if self.index.entries:
                self.index.save()
        files = done.get("files", spec["files"])
        self.index.record = record(done)
        if done.get("staged") is not None:
            publish.finish(self.place, staging, self.existing, done["staged"], files, self.index, listener)
        elif self.existing is not None and "missing" not in done:
            publish.finish_in_place(self.place, self.existing, files, self.owner, self.index)
        os.close(staging)
        return {**done, "notices": listener.notices}


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
