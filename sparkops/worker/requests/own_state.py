"""What sparkops keeps for itself on a node: its state folder and what is below /run, removed when nothing needs it.

Only what sparkops itself puts there is removed; anything else in the folder keeps it.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

from sparkops.worker.calls import Call, Refused
from sparkops.worker.record import claim_records
from sparkops.worker.system import jobs

RUN = "/run/sparkops"
MODELS = "models"
OURS = ("claims", "verified", "compiled", MODELS, "key", "lock", "history.jsonl", "history.jsonl.lock")
"""All names in the state folder that are sparkops' own."""
RUN_OURS = ("jobs", "units", "apt-updated")
NAMED = 3


def observe(ask: dict[str, Any], *, run: str = RUN) -> dict[str, Any] | None:
    """The folder, and in `stays` why it can't go; None where there is neither the folder nor anything below /run.

    `ask`: state_dir, cluster, and `going`: the names of checkpoints that go before it.
    """
    folder = ask["state_dir"]
    if not os.path.isdir(folder) and not os.path.isdir(run):
        return None
    return {"folder": folder, "stays": _others(folder, ask["cluster"]) or _held(folder, ask["going"])}


def _others(folder: str, cluster: str) -> str:
    records = claim_records.records(folder)
    names = sorted(name for name, record in records.items() if record and name != cluster)
    return f"the cluster {', '.join(names)} has things on this node" if names else ""


def _held(folder: str, going: list[str]) -> str:
    if strange := sorted(set(_names(folder)) - set(OURS)):
        return f"it holds what sparkops did not put there: {', '.join(strange[:NAMED])}"
    if working := [str(job["key"]) for job in jobs.running()]:
        return f"a job works: {working[0]}"
    kept = sorted(path for path in _checkpoints(folder) if not any(_of(path, each) for each in going))
    return f"it holds {', '.join(kept[:NAMED])}" if kept else ""


def _checkpoints(folder: str) -> Iterator[str]:
    """What lies below `models/`, each `models/REPOSITORY/NAME`, and what is no folder there."""
    models = os.path.join(folder, MODELS)
    for model in _names(models):
        path = os.path.join(models, model)
        yield from ([os.path.join(path, name) for name in _names(path)] if os.path.isdir(path) else [path])


def _of(path: str, checkpoint: str) -> bool:
    """Whether it is the checkpoint's folder or what a fetch left beside it."""
    parent, name = os.path.split(checkpoint)
    return path == checkpoint or path.startswith(os.path.join(parent, f".{name}.sparkops-"))


def _names(folder: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(folder)
    return []


def converge(
    call: Call,
    ask: dict[str, Any],
    found: dict[str, Any] | None,
    want: dict[str, Any] | None,
    act: dict[str, Any],
    *,
    run: str = RUN,
) -> None:
    """Remove it. Raises Refused where something is left that it belongs to."""
    folder = ask["state_dir"]
    left = [key for record in claim_records.records(folder).values() for key in record]
    why = f"what was put on this node is not all gone: {', '.join(sorted(left)[:NAMED])}" if left else ""
    if why := why or _held(folder, []):
        raise Refused.of("own-state-needed", folder=folder, reason=why)
    for place, names in ((folder, OURS), (run, RUN_OURS)):
        for name in names:
            _remove(os.path.join(place, name))
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(place)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
