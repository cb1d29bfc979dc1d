"""Checkpoint folders that can be given back: those that sparkops brought, and what fetches and builds left beside them.

Brought by sparkops is: what this cluster claims, the folders below `models/` of the state folder, and those that have a
verification index there.
"""

import contextlib
import os
from collections.abc import Sequence

from sparkops.core.descriptors import closing, names
from sparkops.core.messages import Reason, reason
from sparkops.core.request_messages import ItemTold
from sparkops.programs.checkpoints import publish
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import files_below, indexes
from sparkops.worker.calls import Refused
from sparkops.worker.reclaiming.items import DECLARED, GONE, Look, item
from sparkops.worker.record import uses
from sparkops.worker.record.claim_records import Record

BLOCK = 512
KIND = "checkpoint"
KINDS = (KIND, "built_checkpoint")
"""The kinds whose things are folders with a record."""
HELPERS = ("partial", "old", "quantized")
"""How the names beside such a folder end."""


def reclaimable(look: Look) -> list[ItemTold]:
    """The folders, and what is left beside them."""
    items: list[ItemTold] = []
    for folder in sorted(folders(look.state_dir, look.mine)):
        claims = [kind for kind in KINDS if f"{kind} {folder}" in look.mine]
        items += folder_items(folder, look.needs("folders"), look.found, claims=claims)
    return items


def reclaim(state_dir: str, given: ItemTold) -> None:
    """Remove a folder, or what was left beside one. Raises Refused, OSError."""
    name = given["name"]
    parent, last = os.path.split(name)
    if given["kind"] == "leftover":
        CheckpointFolder(os.path.join(parent, last[1:].rpartition(".sparkops-")[0])).abandon(last)
    else:
        publish.retire(CheckpointFolder(name), state_dir)
    if os.path.dirname(parent) == os.path.join(state_dir, "models"):
        with contextlib.suppress(OSError):
            os.rmdir(parent)


def folders(state_dir: str, mine: Record) -> set[str]:
    """The folders of checkpoints that sparkops brought here, whether something is left of them or not."""
    found = {key.partition(" ")[2] for key in mine if key.partition(" ")[0] in KINDS}
    found |= {index.folder for index in indexes(state_dir)}
    models = os.path.join(state_dir, "models")
    for parent in (os.path.join(models, model) for model in names(models)):
        for name in names(parent):
            name = CheckpointFolder.original_name(name) or name
            if name.startswith(".") and (ending := name.rpartition(".sparkops-"))[2] in HELPERS:
                name = ending[0][1:]
            found.add(os.path.join(parent, name))
    return {each for each in found if os.path.isabs(each) and each != "/"}


def folder_items(folder: str, declared: Sequence[str], found: uses.Uses, *, claims: list[str]) -> list[ItemTold]:
    """The items of one checkpoint: its folder, and what a fetch left beside it."""
    place, key = CheckpointFolder(folder), f"checkpoint {folder}"
    wanted = any(uses.overlaps(folder, each) for each in declared)
    held = found.job(key) or found.cluster(key) or found.cluster(f"built_checkpoint {folder}")
    items = [
        item(
            "leftover",
            place.beside(name),
            _size(place.beside(name)),
            held or (reason("gc-resumable") if wanted and name != place.old else None),
            by=KIND,
            note=reason("gc-replaced" if name == place.old else "gc-unfinished"),
        )
        for name in place.helpers
        if os.path.lexists(place.beside(name))
    ]
    aside = reason("gc-set-aside", folder=folder)
    items += [item("leftover", path, _size(path), aside, by=KIND) for path in place.set_aside()]
    if os.path.lexists(folder):
        kept = (DECLARED if wanted else None) or held or found.folder(folder) or _strange(place)
        unknown = bool(kept) and kept == found.unknown
        items.append(item("checkpoint", folder, _size(folder), kept, by=KIND, claims=claims, unknown=unknown))
    elif claims and not wanted:
        items.append(item("checkpoint", folder, 0, held, by=KIND, note=GONE, claims=claims))
    return items


def _strange(place: CheckpointFolder) -> Reason | None:
    """Why a folder is not ours to remove: no record of sparkops in it, or files that the record does not name."""
    try:
        handle = place.open()
    except Refused as error:
        return error.reason
    if handle is None:
        return None
    with closing(handle):
        digest, record = record_of(handle)
        ours = {path for path, _, _ in record.get("files", [])}
        extra = [path for path, _ in files_below(handle) if path not in ours and not path.startswith(".sparkops/")]
    if not digest:
        return reason("gc-without-record")
    if extra:
        return reason("gc-foreign-files", files=sorted(extra))
    return None


def _size(path: str) -> int:
    """Bytes that become free with a tree: a file that has another name elsewhere (a cache's) frees nothing."""
    blocks: dict[tuple[int, int], list[int]] = {}
    for folder, _, inside in os.walk(path):
        for name in inside:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                entry = blocks.setdefault((status.st_dev, status.st_ino), [status.st_blocks, status.st_nlink, 0])
                entry[2] += 1
    return BLOCK * sum(count for count, links, seen in blocks.values() if seen >= links)
