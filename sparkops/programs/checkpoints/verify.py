"""What a published folder is verified to hold, by file statuses alone: its record, and the verification index.

Shared by the kinds whose thing is a folder with a record: `checkpoint` and `built_checkpoint`.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable
from typing import Any

from sparkops.core.descriptors import closing
from sparkops.core.messages import Refused, Unknown
from sparkops.programs import users
from sparkops.programs.checkpoints import loaded_files, whereabouts
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of, status_of
from sparkops.programs.checkpoints.index import Index

SHOWN = 20
"""Paths that a list in a state shows at most."""
LOOKS = 3
"""Looks at a folder in whose place another one is published meanwhile."""
DEEP_AFTER = 86400.0
"""Seconds after which `deep` no longer trusts a proof."""

State = dict[str, Any]


def observe(query: State, describe: Callable[[str, State, Index], State]) -> State | None:
    """The state of the folder of `query` (`{folder, state_dir, deep}`), None where there is none. Raises Unknown.

    `describe(digest, record, index)` adds what the kind reads out of the record.
    """
    place = CheckpointFolder(query["folder"])
    fault = whereabouts.fault(place.path, query["state_dir"])
    barred = {"id": fault[0], "args": fault[1]} if fault else None
    for last in (*[False] * LOOKS, True):
        try:
            handle = place.open()
        except Refused as error:
            raise Unknown(error.id, error.values) from None
        if handle is None:
            return {"barred": barred, "missing": [], "wrong": [], "unverified": []} if barred else None
        with closing(handle), contextlib.suppress(*[] if last else [FileNotFoundError]):  # it is swept meanwhile
            state = {**_content(query, place, handle, describe), "barred": barred}
            if last or place.holds(handle):
                return state
    raise AssertionError("the last look returns")


def _content(
    query: State, place: CheckpointFolder, handle: int, describe: Callable[[str, State, Index], State]
) -> State:
    digest, record = record_of(handle)
    index = Index(query["state_dir"], place.path)
    files = record.get("files", [])
    return {
        **describe(digest, record, index),
        "extra": loaded_files.foreign(handle, place.path, {path for path, _, _ in files}),
        "owner": users.name_of(os.fstat(handle).st_uid),
        "leftover": place.leftover(),
        "strange": not digest and bool(os.listdir(handle)),
        **file_lists(handle, files, index, bool(query.get("deep"))),
    }


def observe_built(query: State) -> State | None:
    """As `observe`, with what a folder was built from. Raises Unknown."""
    return observe(query, _built)


def _built(digest: str, record: State, index: Index) -> State:
    """The record counts only while it is the very text that was published: its owner could write another one."""
    built = record.get("built", {}) if digest and digest == index.record else {}
    return {
        "identity": str(built.get("identity", "")),
        "repository": record.get("repository", "") if built else "",
        "commit": record.get("commit", "") if built else "",
        **sources_of(record if built else {}),
        "size": sum(size for _, size, _ in record.get("files", [])),
    }


def sources_of(record: State) -> State:
    """By which `steps`, and with weights of which `donors`, a record says that its folder was built."""
    built = record.get("built", {})
    donors = [each for each in built.get("donors", []) if isinstance(each, dict)]
    return {
        "donors": [f"{each.get('repository')}@{str(each.get('commit'))[:12]}" for each in donors],
        "steps": [next(iter(step), "") for step in built.get("steps", [])],
    }


def file_lists(handle: int, files: list[tuple[str, int, str]], index: Index, deep: bool) -> State:
    """Which files of a record are missing, wrong or unverified; `hashed`: since when all is verified, or ""."""
    lists: dict[str, list[str]] = {"missing": [], "wrong": [], "unverified": []}
    oldest = time.time()
    limit = oldest - DEEP_AFTER if deep else 0.0
    for path, size, oid in files:
        status = status_of(path, handle)
        if status is None:
            lists["missing"].append(path)
            continue
        known = index.find(status)
        if status.st_size != size or not stat.S_ISREG(status.st_mode) or (known is not None and known[0] != oid):
            lists["wrong"].append(path)
        elif known is None or known[1] < limit:
            lists["unverified"].append(path)
        else:
            oldest = min(oldest, known[1])
    verified = files and not any(lists.values())
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(oldest)) if verified else ""
    return {**{key: _short(paths) for key, paths in lists.items()}, "hashed": since}


def _short(paths: list[str]) -> list[str]:
    more = len(paths) - SHOWN
    return [*paths[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
