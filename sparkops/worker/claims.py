"""What a cluster manages on this node: `claims/CLUSTER.json` in the state folder.

A claim is written before each act and confirmed after its proof, so that a crash in between leaves the trace of what
was meant. Two clusters that claim one thing is an error.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from sparkops.worker.calls import Refused

_writing = threading.Lock()


@contextlib.contextmanager
def acting(claim: dict[str, Any] | None, identity: str, action: str) -> Iterator[None]:
    """Around one act on `identity`. `claim` is `{state_dir, cluster, kind, name}`; None claims nothing."""
    if claim is None:
        yield
        return
    folder = os.path.join(claim["state_dir"], "claims")
    for each in (claim["state_dir"], folder):
        os.makedirs(each, mode=0o700, exist_ok=True)
    key = f"{claim['kind']} {claim['name']}"
    with _writing:
        _refuse_foreign(folder, claim["cluster"], key)
        _change(folder, claim["cluster"], key, {"phase": "acting", "action": action, "since": time.time()})
    yield
    with _writing:
        done = None if action == "delete" else {"phase": "ours", "action": action, "since": time.time()}
        _change(folder, claim["cluster"], key, done)


def _refuse_foreign(folder: str, cluster: str, key: str) -> None:
    for entry in os.listdir(folder):
        other = entry.removesuffix(".json")
        if entry.endswith(".json") and other != cluster and key in _load(os.path.join(folder, entry)):
            raise Refused(
                f"cluster {other!r} manages this on the node already",
                hint=f"take it out of one of the two inventories, or retire it in {other!r} first",
            )


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        raise Refused(f"{path} is no JSON", hint="it is sparkops' record; move it away to start a new one") from None
    return found if isinstance(found, dict) else {}


def _change(folder: str, cluster: str, key: str, entry: dict[str, Any] | None) -> None:
    path = os.path.join(folder, cluster + ".json")
    record = _load(path)
    if entry is None:
        record.pop(key, None)
    else:
        record[key] = entry
    write(path, json.dumps(record, indent=1, sort_keys=True).encode(), 0o600)


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
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
