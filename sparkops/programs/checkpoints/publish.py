"""What needs the rights of who publishes: a folder handed to its owner, put in place with its proof, or removed."""

import os
import pwd
from collections.abc import Iterable

from sparkops.core.descriptors import closing
from sparkops.core.messages import Refused
from sparkops.programs import file_flags
from sparkops.programs.checkpoints import folder as folders
from sparkops.programs.checkpoints.folder import CheckpointFolder, Files, record_of, status_of
from sparkops.programs.checkpoints.foreign_files import carry_over, copy_attributes
from sparkops.programs.checkpoints.index import Index, IndexListener, identities_below, preserved
from sparkops.programs.checkpoints.proof import RECORD, identity

State = dict[str, object]


def hand_over(existing: int, paths: Iterable[str], user: pwd.struct_passwd, index: Index) -> None:
    """The folder and what of it is the checkpoint's becomes the owner's, and stays verified; nothing else does."""
    before = {path: status for path in (RECORD, *paths) if (status := status_of(path, existing)) is not None}
    folders.give(existing, user, before.keys())
    for path, old in before.items():
        index.follow(old, os.stat(path, dir_fd=existing, follow_symlinks=False))


def retire(place: CheckpointFolder, state_dir: str) -> None:
    """Remove a folder that has a record of ours, and its index. Raises Refused `checkpoint-without-record`."""
    handle = place.open()
    if handle is None:
        return
    with closing(handle):
        if not record_of(handle)[0]:
            raise Refused.of("checkpoint-without-record", folder=place.path)
        with preserved(state_dir, handle):
            place.retire()
            Index(state_dir, place.path).forget()


def finish(
    place: CheckpointFolder, staging: int, existing: int | None, staged: dict[str, str], files: Files,
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
            verified[path] = status
            index.note(identity(status), oid, read.get(oid))
    lost = [] if existing is None else _carry_over(existing, staging, files, index)
    if existing is not None:
        _refuse_locked(existing, place.path, deep=not lost)
    index.save()
    if aside := place.publish(staging, aside=bool(lost)):
        listener.notices.append(("folder-set-aside", {"folder": place.path, "aside": aside, "files": lost}))
    place.sweep()
    marks = {index.follow(old, os.stat(path, dir_fd=staging, follow_symlinks=False)) for path, old in verified.items()}
    index.save(marks)  # a file's other name went with the old folder, which changed its ctime: our own act


def finish_in_place(
    place: CheckpointFolder, existing: int, files: Files, user: pwd.struct_passwd, index: Index
) -> None:
    """Sweep, and note what the published folder was verified to hold, which is the owner's from now on."""
    index.drop_other_prefixes({oid for _, _, oid in files})
    hand_over(existing, [path for path, _, _ in files], user, index)
    place.sweep()
    index.save(identities_below(existing))


def _carry_over(existing: int, staging: int, files: Files, index: Index) -> list[str]:
    """Have what the published folder's record does not explain in the staged one too; what could not be."""
    ours = {path for path, _, _ in record_of(existing)[1].get("files", [])}
    oids = {path: oid for path, _, oid in files}
    lost = carry_over(existing, staging, ours, oids, lambda status: (index.find(status) or ("",))[0])
    old, new = os.fstat(existing), os.fstat(staging)
    owner = new.st_uid, old.st_gid if old.st_uid == new.st_uid else new.st_gid
    if not copy_attributes(existing, staging, owner=owner):
        raise Refused.of("folder-attributes-lost", folder=os.readlink(f"/proc/self/fd/{existing}"))
    return lost


def _refuse_locked(existing: int, path: str, *, deep: bool) -> None:
    """Raises Refused `path-attribute` where nobody can move the open folder, or with `deep` remove what is in it."""
    for folder, _, names, at in os.fwalk(".", dir_fd=existing, follow_symlinks=False):
        for name in (".", *names) if deep else (".",):
            file_flags.refuse(os.path.normpath(os.path.join(path, folder, name)), name, at)
        if not deep:
            return
