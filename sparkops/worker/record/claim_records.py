"""The records of claims on this node, and whether what a claim names is still what was put there. It writes nothing.

It must not know any kind: a claim says itself at which path, as which file type and by which unit its thing is found.
"""

import hashlib
import json
import os
from collections.abc import Collection
from typing import Any

from sparkops.core.descriptors import FILE, names
from sparkops.worker.calls import Unknown

Entry = dict[str, Any]
"""A claim as it is recorded; what it holds besides path, type, unit and content is for its kind."""
Record = dict[str, Entry]
"""The claims of one cluster, by key (`KIND NAME`)."""
RUNNING = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice")
TYPES = {0o100000: "file", 0o120000: "link", 0o040000: "directory"}
ENTRIES = 256
"""Names in a directory that are told at most; one with more is not about to become empty."""


def records(state_dir: str) -> dict[str, Record]:
    """The records of all clusters, by their names. Raises Unknown for one that can't be read as such, OSError."""
    folder = os.path.join(state_dir, "claims")
    return {name[:-5]: load(os.path.join(folder, name)) for name in names(folder) if name.endswith(".json")}


def own(state_dir: str, cluster: str, former: str) -> tuple[Record, dict[str, Record]]:
    """The claims of a cluster, with those of its `former` name ("" for none), and the records of all others.

    Raises as `records` does.
    """
    others = records(state_dir)
    mine = others.pop(cluster, {})
    return {**others.pop(former, {}), **mine}, others


def load(path: str) -> Record:
    """One record; empty where there is none. Raises Unknown for what is no record."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unknown.of("claims-unreadable", path=path)
    return {key: entry for key, entry in found.items() if isinstance(entry, dict)}


def state(state_dir: str, entry: Entry, others: Collection[str]) -> dict[str, object]:
    """What there is `now` of a claim, in a word, and of a directory the `entries`.

    gone, ours, edited, other (another type of file), unrecorded (no content of ours), shared with `others`, or "" where
    the claim does not say how to tell.
    """
    if others:
        return {"now": "shared", "others": sorted(others)}
    path, recorded = entry.get("path"), entry.get("content") or []
    if not path:
        return {"now": ""}
    if unit := entry.get("unit"):
        there = os.path.lexists(path) or any(os.path.isdir(os.path.join(folder, unit)) for folder in RUNNING)
        return {"now": "gone" if not there else "ours" if recorded else "unrecorded"}
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {"now": "gone"}
    type = TYPES.get(found.st_mode & 0o170000)
    if type != entry.get("type"):
        return {"now": "other"}
    if type == "directory":
        entries = os.listdir(path)
        return {"now": "ours", "entries": sorted(entries) if len(entries) <= ENTRIES else None}
    if not recorded:
        return {"now": "unrecorded"}
    contents = [os.readlink(path)] if type == "link" else _contents(state_dir, path, recorded)
    return {"now": "ours" if set(contents) & set(recorded) else "edited"}


def _contents(state_dir: str, path: str, recorded: list[str]) -> list[str]:
    """The names that the content has in records: its digest, and its HMAC where a record has one."""
    digest = hashlib.sha256()
    sealed = sealer(state_dir, path) if any(each.startswith("hmac:") for each in recorded) else None
    handle = os.open(path, FILE | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
            if sealed is not None:
                sealed.update(part)
    return ["sha256:" + digest.hexdigest()] + ([] if sealed is None else ["hmac:" + sealed.hexdigest()])


def sealer(state_dir: str, path: str) -> Any:
    """An HMAC by the node's key, for the content of the file at `path`; None where the node has no key."""
    import hmac  # only for secret files: it loads OpenSSL

    key = node_key(state_dir)
    return hmac.new(key, b"claim\0" + path.encode() + b"\0", "sha256") if key else None


def node_key(state_dir: str) -> bytes:
    """The node's own key; b"" where it has none yet."""
    try:
        with open(os.path.join(state_dir, "key"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
