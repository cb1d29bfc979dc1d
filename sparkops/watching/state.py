"""What a watcher keeps of itself on this machine: its sign of life, what it has told, what is not delivered yet.

One file for each watched selection, replaced as a whole after each round; a lock beside it keeps a second watcher away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sparkops.core import atomic, data, named_file
from sparkops.core.digests import digest
from sparkops.core.errors import LockBusy
from sparkops.core.report import Report
from sparkops.library import Cluster
from sparkops.reports import schemas
from sparkops.reports.record import StateFolderUnusable
from sparkops.reports.run.prometheus import metric
from sparkops.watching.edges import Edges

Waiting = Mapping[str, "list[dict[str, object]]"]
"""The messages that are not delivered yet, by their receiver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A sign of life. `time`, `run` and `exit_status` are those of the last round that came to a report; `reloaded`
    says whether the inventory was understood when it was last read; `interval` is in seconds."""

    cluster: str
    interval: float
    pid: int
    rounds: int = 0
    time: float = 0.0
    run: str = ""
    exit_status: int | None = None
    reloaded: bool = True

    def after(self, report: Report) -> Beat:
        """After one more round."""
        return replace(self, rounds=self.rounds + 1, time=report.time, run=report.run, exit_status=report.exit_status)


def metrics(beat: Beat, undelivered: int) -> str:
    """A sign of life for Prometheus; times are seconds since the epoch."""
    gauges = {
        "last_round_timestamp_seconds": ("When the last round ended that came to a report", beat.time),
        "interval_seconds": ("Time from round to round", beat.interval),
        "undelivered_changes": ("Messages that a receiver has not taken yet", undelivered),
        "reload_successful": ("1 where the inventory was understood when it was last read", beat.reloaded),
    }
    about = {"cluster": beat.cluster}
    return "".join(
        line
        for name, (help, number) in gauges.items()
        for line in metric(f"sparkops_watch_{name}", help, about, [({}, number)])
    )


class StateFile:
    """The file of one watcher, which is held alone from `open` to `close`."""

    def __init__(self, cluster: Cluster) -> None:
        inventory = cluster.inventory
        part = (inventory.shard.number, inventory.shard.of) if inventory.shard is not None else ()
        chosen = [str(inventory.path.resolve()), cluster.limit, cluster.roles, cluster.extra, part]
        self.path = data.state_folder() / "watch" / f"{digest(chosen)}.json"
        self._lock: int | None = None

    def open(self) -> tuple[Edges, Waiting]:
        """What an earlier process told, and did not deliver. Raises LockBusy, StateFolderUnusable."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kept = atomic.mapping(str(self.path))
        except BlockingIOError:
            self.close()
            raise LockBusy.of("watch-runs-already", where=str(self.path.with_suffix(".lock"))) from None
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise StateFolderUnusable.of("state-folder-unusable", folder=str(self.path.parent), reason=reason) from None
        edges, waiting = kept.get("edges"), kept.get("undelivered")
        told = Edges.from_json(edges) if isinstance(edges, dict) else Edges()
        return told, {name: _messages(each) for name, each in waiting.items()} if isinstance(waiting, dict) else {}

    def write(self, beat: Beat, edges: Edges, waiting: Waiting) -> None:
        """Replace the file. Raises OSError."""
        told = {"schema": schemas.WATCH, **asdict(beat), "edges": edges.as_json(), "undelivered": dict(waiting)}
        atomic.write(self.path, json.dumps(told, indent=1).encode(), 0o600)

    def close(self) -> None:
        """Let another watcher begin."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
        self._lock = None


def _messages(found: object) -> list[dict[str, object]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def write_metrics(path: Path, beat: Beat, waiting: Waiting) -> None:
    """Replace the file for node_exporter's textfile collector. Raises OSError."""
    named_file.write(path, metrics(beat, sum(map(len, waiting.values()))))
