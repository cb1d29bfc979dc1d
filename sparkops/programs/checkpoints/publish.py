"""What needs the rights of who publishes: a folder handed to its owner, put in place with its proof, or removed."""

import os
import pwd
from typing import Any

from sparkops.core.messages import Refused
from sparkops.programs.checkpoints import folder as folders
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.foreign_files import unmatched_files
from sparkops.programs.checkpoints.index import (
    Index,
    IndexListener,
    files_below,
    identities_below,
    identity,
    lasting,
    preserved,
)

State = dict[str, Any]


def hand_over(existing: int, user: pwd.struct_passwd, index: Index) -> None:
    """The folder becomes the owner's; what was verified stays verified where only the owner changed."""
    if os.fstat(existing).st_uid == user.pw_uid:
        return
    before = dict(files_below(existing))
    folders.hand_over(existing, user)
    for path, status in files_below(existing):
        known = index.find(before[path]) if path in before else None
        if known is not None and lasting(before[path]) == lasting(status):
            index.note(identity(status), *known)


def retire(place: CheckpointFolder, state_dir: str) -> None:
    """Remove a folder that has a record of ours, and its index. Raises Refused `checkpoint-without-record`."""
    handle = place.open()
    if handle is None:
        return
    digest, _ = record_of(handle)
    if not digest:
        os.close(handle)
        raise Refused.of("checkpoint-without-record", folder=place.path)
    with preserved(state_dir, handle):
        place.retire()
        Index(state_dir, place.path).forget()
    os.close(handle)


def finish(
    place: CheckpointFolder, staging: int, existing: int | None, staged: dict[str, str], files: list[Any],
    index: Index, listener: IndexListener,
) -> None:  # fmt: skip
    """Note what was verified, publish, sweep. The note comes first: a crash in between costs no second hashing.

    `staged` maps the paths of `files` in staging to the identities that they were verified at. Where files of somebody
    else would be gone with the old folder, that is set aside, with the notice `folder-set-aside`.
    """
    index.drop_other_prefixes({oid for _, _, oid in files})
    read = dict(sorted(index.entries.values(), key=lambda entry: entry[1]))
    verified = {}
    for path, _, oid in files:
        status = os.stat(path, dir_fd=staging, follow_symlinks=False)
        if identity(status) == staged.get(path):
            verified[path] = lasting(status)
            index.note(identity(status), oid, read.get(oid))
    lost = [] if existing is None else _lost(existing, staging, files, index)
    index.save()
    if aside := place.publish(staging, aside=bool(lost)):
        listener.notices.append(("folder-set-aside", {"folder": place.path, "aside": aside, "files": lost}))
    place.sweep()
    _note_again(staging, files, verified, read, index)


def finish_in_place(place: CheckpointFolder, existing: int, files: list[Any], index: Index) -> None:
    """Sweep, and note what the published folder was verified to hold."""
    index.drop_other_prefixes({oid for _, _, oid in files})
    place.sweep()
    index.save(identities_below(existing))


def _lost(existing: int, staging: int, files: list[Any], index: Index) -> list[str]:
    """What the published folder holds that its record does not explain and the staged one does not have."""
    ours = {path for path, _, _ in record_of(existing)[1].get("files", [])}
    oids = {path: oid for path, _, oid in files}
    return unmatched_files(existing, staging, ours, oids, lambda status: (index.find(status) or ("",))[0])


def _note_again(folder: int, files: list[Any], verified: dict[str, str], read: dict[str, float], index: Index) -> None:
    """Removing a file's other name with the old folder changed its ctime; our own act invalidates no proof."""
    marks = set()
    for path, _, oid in files:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        if verified.get(path) == lasting(status):
            index.note(identity(status), oid, read.get(oid))
            marks.add(identity(status))
    index.save(marks)
