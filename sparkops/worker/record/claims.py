"""What a cluster manages on this node: `claims/CLUSTER.json` in the state folder.

A claim is written before each act and confirmed after its proof, so that a crash in between leaves the trace of what
was meant. It keeps a digest of what was put there (of a secret an HMAC by the node's key), by which `state` tells
later whether it is still there. Two clusters that claim one thing is an error, unless both share it.
"""

import contextlib
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.system import safe_path

UNITS = "/etc/systemd/system"
RUNNING = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/systemd/system.slice")
ENTRIES = 256
"""Names in a directory that are reported at most; one with more is not about to become empty."""
PREPARED = {"file": "", "link": "", "unit": UNITS}
"""The kinds whose new content is prepared beside the old one, and the folder in which their names stand."""

_writing = threading.Lock()


@contextlib.contextmanager
def acting(claim: dict[str, Any] | None, identity: str, action: str) -> Iterator[None]:
    """Around one act on `identity`; None claims nothing.

    `claim` is `{state_dir, cluster, kind, name, kept, pruned}`: `kept` goes into the record, and what is `pruned` is
    refused where it is no longer what was put there.
    """
    if claim is None:
        yield
        return
    state_dir, cluster = claim["state_dir"], claim["cluster"]
    key = f"{claim['kind']} {claim['name']}"
    with _writing:
        kept = _kept(state_dir, key, claim.get("kept") or {})
        mine = _mine(state_dir, cluster, {key: kept}, removing=action == "delete")
        old = mine.get(key, {})
        _clear(key, old)
        if claim.get("pruned"):
            _refuse_not_ours(state_dir, key, old)
        meant = {**(old if action == "delete" else {}), **kept, "phase": "acting", "action": action}
        if contents := [*old.get("content", []), *kept.get("content", [])]:
            meant["content"] = list(dict.fromkeys(contents))
        _write(state_dir, cluster, {**mine, key: {**meant, "since": time.time()}})
    yield
    with _writing:
        mine = load(_path(state_dir, cluster))
        mine.pop(key, None)
        if action != "delete":
            mine[key] = {**kept, "phase": "ours", "action": action, "since": time.time()}
        _write(state_dir, cluster, mine)


def note(state_dir: str, cluster: str, claims: dict[str, dict[str, Any]], drop: list[str]) -> None:
    """Claim what stands there as it is declared, and let go of `drop`, in one write. Raises Refused."""
    with _writing:
        kept = {key: _kept(state_dir, key, each) for key, each in claims.items()}
        mine = _mine(state_dir, cluster, kept, removing=False)
        for key, each in kept.items():
            _clear(key, mine.get(key, {}))
            mine[key] = {
                **each,
                "phase": "ours",
                "action": mine.get(key, {}).get("action", "found"),
                "since": time.time(),
            }
        for key in drop:
            _clear(key, mine.pop(key, {}))
        _write(state_dir, cluster, mine)


def _clear(key: str, entry: dict[str, Any]) -> None:
    """An act that never was confirmed may have been cut off, and what it had prepared stands beside the thing."""
    kind, _, name = key.partition(" ")
    if entry.get("phase") == "acting" and kind in PREPARED:
        safe_path.clear(os.path.join(PREPARED[kind], name))


def _kept(state_dir: str, key: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the record holds: in the place of a secret its HMAC."""
    kept = {name: value for name, value in given.items() if name != "secret"}
    if "secret" in given:
        make_key(state_dir)
        sealed = sealer(state_dir, key.partition(" ")[2])
        sealed.update(given["secret"])
        kept["content"] = ["hmac:" + sealed.hexdigest()]
    return kept


def _mine(
    state_dir: str, cluster: str, kept: dict[str, dict[str, Any]], *, removing: bool
) -> dict[str, dict[str, Any]]:
    """This cluster's record. Raises Refused where another claims one that not both share, or that is to go."""
    found = records(state_dir)
    mine = found.pop(cluster, {})
    for other, record in found.items():
        for key, each in kept.items():
            if key in record and (removing or not (each.get("shared") and record[key].get("shared"))):
                raise Refused(
                    f"cluster {other!r} manages {key} on this node already",
                    hint=f"take it out of one of the two inventories, or retire it in {other!r} first",
                )
    return mine


def _refuse_not_ours(state_dir: str, key: str, entry: dict[str, Any]) -> None:
    now = state(state_dir, key, entry, {})["now"]
    if now not in ("ours", "gone"):
        raise Refused("it is no longer what sparkops put there; nothing was done", "stale")


def _path(state_dir: str, cluster: str) -> str:
    return os.path.join(state_dir, "claims", cluster + ".json")


def _write(state_dir: str, cluster: str, record: dict[str, Any]) -> None:
    for each in (state_dir, os.path.join(state_dir, "claims")):
        os.makedirs(each, mode=0o700, exist_ok=True)
    write(_path(state_dir, cluster), json.dumps(record, indent=1, sort_keys=True).encode(), 0o600)


def make_key(state_dir: str) -> None:
    """See that the node has a key of its own."""
    if not node_key(state_dir):
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        write(os.path.join(state_dir, "key"), os.urandom(32), 0o600)


def write(path: str, data: bytes, mode: int) -> None:
    """Write beside, fsync, rename: the old content or the new one, never a part."""
    beside = os.path.join(os.path.dirname(path), f".sparkops-{os.urandom(8).hex()}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, path) from None
        raise


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
    there = [os.readlink(name)] if kind == "link" else _contents(state_dir, name, recorded)
    return {"now": "ours" if set(there) & set(recorded) else "edited"}


def _unit(name: str, entry: dict[str, Any]) -> str:
    there = os.path.lexists(os.path.join(UNITS, name)) or any(
        os.path.isdir(os.path.join(folder, name)) for folder in RUNNING
    )
    return "gone" if not there else "ours" if entry.get("content") else "unrecorded"


def _contents(state_dir: str, path: str, recorded: list[str]) -> list[str]:
    """The names that the content has in records: its digest, and its HMAC where a record has one."""
    digest = hashlib.sha256()
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
    key = node_key(state_dir)
    return hmac.new(key, b"claim\0" + path.encode() + b"\0", "sha256") if key else None


def node_key(state_dir: str) -> bytes:
    """The node's own key; b"" where it has none yet."""
    try:
        with open(os.path.join(state_dir, "key"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
