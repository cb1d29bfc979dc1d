"""Run the build program on folders, as the node's job does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkops.programs import runner
from sparkops.programs.build import main
from sparkops.programs.build.build import Build as Program
from sparkops.programs.build.spec import Spec
from sparkops.programs.progress import Listener
from sparkops.programs.protocol import Output
from tests.lab.hub import Hub
from tests.worker import checkpoints_made as made

OPTIONS = {"connections": 4, "segment": 256 << 10, "stall": 2.0, "pause": 0.02}


@dataclass
class Donor:
    """A folder that the hub serves as a repository."""

    repository: str
    folder: Path
    hub: Hub
    commit: str = ""
    token: str = ""

    def spec(self) -> dict[str, Any]:
        return {
            "repository": self.repository,
            "commit": self.commit,
            "files": made.manifest(self.folder),
            "hub": {"endpoint": self.hub.endpoint, "token": self.token},
        }


@dataclass
class Build(Listener):
    """A base and what is to come of it. `notices` are those of the last run."""

    base: Path
    staging: Path
    steps: Sequence[dict[str, Any]]
    donors: Sequence[Donor] = ()
    identity: str = "build:sha256:one"
    notices: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def spec(self) -> dict[str, Any]:
        return {
            "mode": "build",
            "identity": self.identity,
            "files": made.manifest(self.base),
            "donors": [donor.spec() for donor in self.donors],
            "steps": list(self.steps),
            "record": {"repository": "o/base", "commit": "a" * 40, "built": {"identity": self.identity}},
            "known": {},
            "existing": None,
            "previous": [],
            "published": [],
            "published_known": {},
            "fetch": OPTIONS,
            "folder": "/srv/built",
        }

    def run(self) -> dict[str, Any]:
        """Run the program; raises Refused."""
        spec, descriptors = self._opened()
        self.notices.clear()
        try:
            return dict(runner.run(main.__name__, spec, self, descriptors=descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def killed(self, check: Callable[[], None]) -> bool:
        """Run it in a fork that calls `check` where the program asks whether to stop; whether that ended early."""
        spec, _ = self._opened()
        pid = os.fork()
        if pid == 0:
            os.chdir(self.staging)
            output = Output(os.open(os.devnull, os.O_WRONLY))
            output.check = check  # type: ignore[method-assign]
            Program(spec, spec["base"], output).work()
            os._exit(0)
        return os.waitpid(pid, 0)[1] != 0

    def _opened(self) -> tuple[Spec, list[int]]:
        spec = self.spec()
        self.staging.mkdir(exist_ok=True)
        base, staging = (os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (self.base, self.staging))
        return {**spec, "base": base, "staging": staging}, [base, staging]  # type: ignore[typeddict-item]

    def progress(self, message: Mapping[str, Any]) -> None: ...

    def notice(self, id: str, args: Mapping[str, Any]) -> None:
        self.notices.append((id, dict(args)))
