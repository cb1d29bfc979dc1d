"""Which files of a manifest a folder or a cache holds, wherever they stand in it; nothing is changed."""

import os
from typing import Literal

from sparkops.core.descriptors import FILE, closing
from sparkops.core.request_messages import ComparedFiles
from sparkops.programs.checkpoints.local_sources import Sources
from sparkops.programs.checkpoints.proof import identity
from sparkops.programs.fetch.existing import File, hash_unchanged
from sparkops.programs.parallel import on_all_cores
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output


def compare(folder: str, sources: Sources, files: list[File], known: dict[str, str], output: Output) -> ComparedFiles:
    """Where each file of a manifest stands.

    Files that were read before and are unchanged (`known`) are not read again. Where this process may not look into
    something, it is not known of what was not found whether it stands there.
    """
    candidates = {path: list(sources.candidates(path, oid, size)) for path, size, oid in files}
    tracker = Tracker(output, "verifying", sum(size * len(candidates[path]) for path, size, _ in files))
    right: set[str] = set()

    def check(file: File) -> None:
        path, size, oid = file
        if any(_holds(place, size, oid, known, tracker, output) for place in candidates[path]):
            right.add(path)

    on_all_cores(check, files)
    found: ComparedFiles = {
        "right": [],
        "wrong": [],
        "missing": [],
        "unreadable": [],
        "right_bytes": 0,
        "other_bytes": 0,
    }
    for path, size, _ in files:
        exists = candidates[path] or os.path.lexists(os.path.join(folder, path))
        other: Literal["unreadable", "wrong", "missing"] = "wrong" if exists else "missing"
        found["right" if path in right else "unreadable" if sources.denied else other].append(path)
        found["right_bytes" if path in right else "other_bytes"] += size
    return found


def _holds(place: str, size: int, oid: str, known: dict[str, str], tracker: Tracker, output: Output) -> bool:
    with closing(os.open(place, FILE)) as handle:
        if known.get(identity(os.fstat(handle))) == oid:
            tracker.add(size)
            return True
        return hash_unchanged(handle, oid, size, tracker, output) == oid
