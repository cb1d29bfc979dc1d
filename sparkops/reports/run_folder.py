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
from dataclasses import dataclass
from pathlib import Path

from sparkops.core.events import Event
from sparkops.core.plan import plain
from sparkops.core.report import Report
from sparkops.reports.json import as_json

KEEP = 100


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `write` is a listener."""

    path: Path

    @classmethod
    def create(cls, cluster: str, command: str) -> RunFolder:
        """A new folder, named by time (UTC) and command; the oldest beyond KEEP are removed."""
        home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        base = home / "sparkops" / "runs" / re.sub(r"[^\w.-]", "_", cluster)
        path = base / f"{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}-{command}-{os.getpid()}"
        path.mkdir(parents=True, mode=0o700)
        for old in sorted(each for each in base.iterdir() if each != path)[: 1 - KEEP]:
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
        return cls(path)

    def write(self, event: Event) -> None:
        """Append one event to `events.jsonl`."""
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(event.as_json())) + "\n")

    def finish(self, report: Report) -> Report:
        """Leave `report.json`; returns the report with the folder's name in it."""
        done = dataclasses.replace(report, run=str(self.path))
        (self.path / "report.json").write_text(json.dumps(as_json(done), indent=1) + "\n", encoding="utf-8")
        return done
