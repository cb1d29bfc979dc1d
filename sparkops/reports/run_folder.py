"""Run folders: what an apply did, on the controller, as JSON lines and a report.

They stand under `$XDG_STATE_HOME/sparkops/runs/CLUSTER/` (`~/.local/state` without it), the newest KEEP of them.
Neither content nor secrets are in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

from sparkops.core import folders
from sparkops.core.errors import SparkopsError
from sparkops.core.events import Event
from sparkops.core.plan import plain
from sparkops.core.report import Report
from sparkops.reports.json import as_json

KEEP = 100
EVENTS = "events.jsonl"


class StateFolderUnusable(SparkopsError):
    """This machine cannot keep the record of a run."""

    exit_status = 74


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `write` is a listener.

    A disk that fills during a run costs the record, never the run: `lost` says then why the record is incomplete.
    """

    path: Path
    lost: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, cluster: str, command: str) -> RunFolder:
        """A new folder, named by time (UTC) and command; the oldest beyond KEEP are removed.

        Raises StateFolderUnusable before anything is done.
        """
        base = folders.state() / "runs" / re.sub(r"[^\w.-]", "_", cluster)
        path = base / f"{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}-{command}-{os.getpid()}"
        try:
            path.mkdir(parents=True, mode=0o700)
            (path / EVENTS).touch()
        except OSError as error:
            raise StateFolderUnusable.of("state-folder-unusable", folder=str(base), reason=error.strerror) from None
        for old in sorted(each for each in base.iterdir() if each != path)[: 1 - KEEP]:
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
        return cls(path)

    def write(self, event: Event) -> None:
        """Append one event to `events.jsonl`."""
        with self._recording(), (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(event.as_json())) + "\n")

    def finish(self, report: Report) -> Report:
        """Leave `report.json`; returns the report with the folder's name in it."""
        done = dataclasses.replace(report, run=str(self.path))
        with self._recording():
            (self.path / "report.json").write_text(json.dumps(as_json(done), indent=1) + "\n", encoding="utf-8")
        return done

    @contextlib.contextmanager
    def _recording(self) -> Generator[None, None, None]:
        try:
            yield
        except OSError as error:
            if not self.lost:
                self.lost.append(error.strerror or str(error))
