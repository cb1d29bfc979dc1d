"""What the records of claims on this node say, and whether what they name still stands there as it was put there.

Looking only; `claims` writes. It must not know which claims a cluster still means: the controller names those.
"""

import json
import os
from typing import Any

from sparkops.worker.calls import Call, Unknown
from sparkops.worker.system import digests

UNITS = "/etc/systemd/system"
RUNNING = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice")
ENTRIES = 256
"""Names in a directory that are told at most; one with more is not about to become empty."""


def observe(ask: dict[str, Any]) -> dict[str, Any]:
    """This cluster's claims that are not `declared`, and those of others on what is.

    `ask`: state_dir, cluster, `declared` ("KIND NAME", …), `strays` to look at claims beyond those, `whole` to get the
    declared ones' entries too. Answers `strays` (each entry with what `state` says), `foreign` ({key: {cluster:
    shared}}) and `claims`.
    """
    declared = set(ask["declared"])
    found: dict[str, Any] = {"strays": {}, "foreign": {}, "claims": {}}
    others: dict[str, dict[str, Any]] = {}
    mine: dict[str, Any] = {}
    for cluster, record in records(ask["state_dir"]).items():
        if cluster == ask["cluster"]:
            mine = record
        for key in record if cluster != ask["cluster"] else ():
            others.setdefault(key, {})[cluster] = bool(record[key].get("shared"))
    found["foreign"] = {key: others[key] for key in others if key in declared}
    for key, entry in mine.items():
        if key in declared:
            if ask.get("whole"):
                found["claims"][key] = entry
        elif ask.get("strays"):
            found["strays"][key] = {**entry, **state(ask["state_dir"], key, entry, others.get(key, {}))}
    return found


def records(state_dir: str) -> dict[str, dict[str, Any]]:
    """The records of all clusters, by their names. Raises Unknown for one that can't be read as such, OSError."""
    folder = os.path.join(state_dir, "claims")
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return {}
    return {name[:-5]: load(os.path.join(folder, name)) for name in names if name.endswith(".json")}


def load(path: str) -> dict[str, dict[str, Any]]:
    """One record; empty where there is none. Raises Unknown for what is no record."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unknown(f"{path} is no record of claims; it is sparkops' own, move it away to start a new one")
    return {key: entry for key, entry in found.items() if isinstance(entry, dict)}


def state(state_dir: str, key: str, entry: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """What stands there `now`, in a word, and of a directory the `entries`.

    gone, ours, edited, other (another sort of thing), unrecorded (we put no content there), shared with `others`, or ""
    where that is not looked at.
    """
    kind, _, name = key.partition(" ")
    if others:
        return {"now": "shared", "others": sorted(others)}
    if kind == "unit":
        return {"now": _unit(name, entry)}
    if kind not in ("file", "link", "directory"):
        return {"now": ""}
    try:
        found = os.lstat(name)
    except (FileNotFoundError, NotADirectoryError):
        return {"now": "gone"}
    sort = {0o100000: "file", 0o120000: "link", 0o040000: "directory"}.get(found.st_mode & 0o170000)
    if sort != kind:
        return {"now": "other"}
    if kind == "directory":
        names = os.listdir(name)
        return {"now": "ours", "entries": sorted(names) if len(names) <= ENTRIES else None}
    recorded = entry.get("content") or []
    if not recorded:
        return {"now": "unrecorded"}
    there = [os.readlink(name)] if kind == "link" else _contents(state_dir, name, found.st_size, recorded)
    return {"now": "ours" if set(there) & set(recorded) else "edited"}


def _unit(name: str, entry: dict[str, Any]) -> str:
    there = os.path.lexists(os.path.join(UNITS, name)) or any(
        os.path.isdir(os.path.join(folder, name)) for folder in RUNNING
    )
    return "gone" if not there else "ours" if entry.get("content") else "unrecorded"


def _contents(state_dir: str, path: str, size: int, recorded: list[str]) -> list[str]:
    """The names that the content has in records: its digest, and its HMAC where a record has one."""
    digest = digests.sha256(size)
    sealed = sealer(state_dir, path) if any(each.startswith("hmac:") for each in recorded) else None
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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


def note(call: Call, args: dict[str, Any]) -> None:
    """`claims.note`, as a call."""
    from sparkops.worker.record import claims  # acts only: a look does not pay for it

    claims.note(args["state_dir"], args["cluster"], args["claims"], args["drop"])


CALLS = {"note": note}
