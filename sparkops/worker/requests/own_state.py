"""What sparkops keeps for itself on a node: its state folder and what is below /run, removed when nothing needs it.

Only what sparkops itself puts there is removed; anything else in the folder keeps it.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from sparkops.core import atomic
from sparkops.core.descriptors import names
from sparkops.core.kind_messages import Nothing, StateAsk
from sparkops.core.messages import Reason, State, reason
from sparkops.worker.calls import Call, Refused
from sparkops.worker.record import claim_records, own_folder
from sparkops.worker.record.claim_records import Record
from sparkops.worker.system import jobs

RUN = "/run/sparkops"
MODELS = "models"
ADOPTED = "adopted"
"""What `sparkops adopt` moved aside: a person's."""
RUN_OURS = ("jobs", "units", "apt-updated")


def observe(ask: dict[str, Any], *, run: str = RUN) -> dict[str, object] | None:
    """The folder, and why it `stays` (a Reason or None); None where neither it nor anything below /run is there.

    `ask`: state_dir, cluster, its `former` name, and `going`: the names of checkpoints that go before it.
    """
    folder = ask["state_dir"]
    if not os.path.isdir(folder) and not os.path.isdir(run):
        return None
    _, records = claim_records.own(folder, ask["cluster"], ask["former"])
    return {"folder": folder, "stays": _others(records) or _held(folder, ask["going"])}


def _others(records: dict[str, Record]) -> Reason | None:
    clusters = sorted(name for name, record in records.items() if record)
    return reason("own-state-of-cluster", clusters=clusters) if clusters else None


def _held(folder: str, going: list[str]) -> Reason | None:
    if strange := sorted(set(names(folder)) - set(own_folder.NAMES)):
        return reason("own-state-foreign", files=strange)
    if aside := names(os.path.join(folder, ADOPTED)):
        return reason("own-state-adopted", files=aside)
    if working := [str(job["key"]) for job in jobs.running()]:
        return reason("own-state-job", key=working[0])
    kept = sorted(path for path in _checkpoints(folder) if not any(_of(path, each) for each in going))
    return reason("own-state-checkpoints", folders=kept) if kept else None


def _checkpoints(folder: str) -> Iterator[str]:
    """What lies below `models/`, each `models/REPOSITORY/NAME`, and what is no folder there."""
    models = os.path.join(folder, MODELS)
    for model in names(models):
        path = os.path.join(models, model)
        yield from ([os.path.join(path, name) for name in names(path)] if os.path.isdir(path) else [path])


def _of(path: str, checkpoint: str) -> bool:
    """Whether it is the checkpoint's folder or what a fetch left beside it."""
    parent, name = os.path.split(checkpoint)
    return path == checkpoint or path.startswith(os.path.join(parent, f".{name}.sparkops-"))


def converge(call: Call, ask: StateAsk, found: State, want: State, act: Nothing, *, run: str = RUN) -> None:
    """Remove it. Raises Refused where something is left that it belongs to."""
    folder = ask["state_dir"]
    left = [key for record in claim_records.records(folder).values() for key in record]
    why = reason("own-state-claims", things=sorted(left)) if left else None
    if why := why or _held(folder, []):
        raise Refused.of("own-state-needed", folder=folder, reason=why)
    for place, ours in ((folder, own_folder.NAMES), (run, RUN_OURS)):
        for name in ours:
            atomic.remove(os.path.join(place, name))
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(place)
