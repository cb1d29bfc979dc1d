"""Run a build as the node's job does: in a child with a staging folder as its working directory."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.programs.build.build import Building
from sparkops.worker.system import privileges as rights
from tests.lab.hub import Hub
from tests.worker import checkpoints_made as made

MANNER = {"connections": 4, "segment": 256 << 10, "stall": 2.0, "pause": 0.02}


@dataclass
class Donor:
    """A folder that the hub serves as a repository."""

    repository: str
    folder: Path
    hub: Hub
    commit: str = ""
    token: str = ""

    def order(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "commit": self.commit,
            "files": made.manifest(self.folder),
            "hub": {"endpoint": self.hub.endpoint, "token": self.token},
        }


@dataclass
class Build:
    """A base and what is to come of it."""

    base: Path
    staging: Path
    steps: Sequence[dict[str, Any]]
    donors: Sequence[Donor] = ()
    identity: str = "build:sha256:one"
    said: list[dict[str, Any]] = field(default_factory=list)

    def order(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "files": made.manifest(self.base),
            "donors": [donor.order() for donor in self.donors],
            "steps": list(self.steps),
            "record": {"repository": "o/base", "commit": "a" * 40, "built": {"identity": self.identity}},
            "known": {},
            "manner": MANNER,
            "folder": "/srv/built",
        }

    def run(self, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Build; raises Refused."""
        order = self.order()
        self.staging.mkdir(exist_ok=True)
        base = os.open(self.base, os.O_RDONLY | os.O_DIRECTORY)

        def work(say: rights.Report) -> dict[str, Any]:
            os.chdir(self.staging)
            return Building(order, base, say, check).work()

        try:
            return rights.run(pwd.getpwuid(os.getuid()), work, self.said.append)
        finally:
            os.close(base)
