"""The node's own record of what was done to it: one JSON line per run in `history.jsonl` of the state folder.

It is bounded: when it has grown beyond LIMIT bytes, the older half goes. Neither content nor secrets are in it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator

from sparkops.core import atomic
from sparkops.core.descriptors import FILE, closing
from sparkops.core.request_messages import HistoryRequest
from sparkops.worker.calls import Call, Refused

LIMIT = 1 << 20
LINE = 64 << 10
"""Bytes of one line; a run of more steps names the first of them."""


def append(call: Call, args: HistoryRequest) -> float:
    """Add `entry` to the record in `state_dir`, with the node's time; returns that. Raises Refused, OSError."""
    os.makedirs(args["state_dir"], mode=0o700, exist_ok=True)
    now = time.time()
    steps, entry = args["entry"].get("steps"), {"time": now, **args["entry"]}
    while len(line := json.dumps(entry).encode() + b"\n") > LINE and isinstance(steps, list) and steps:
        steps = steps[: len(steps) // 2]
        entry |= {"steps": steps, "more": True}
    path = os.path.join(args["state_dir"], "history.jsonl")
    with _alone(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "rb+") as file:
            os.fchmod(file.fileno(), 0o600)
            size = os.fstat(file.fileno()).st_size
            if size + len(line) <= LIMIT:
                torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
                file.write(b"\n" * torn + line)
                file.flush()
                os.fsync(file.fileno())
                return now
            kept = file.read().splitlines(keepends=True)
        atomic.write(path, b"".join(kept[len(kept) // 2 :]) + line, 0o600)
    return now


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Two who write at once, on a lock beside the record: the record itself is replaced now and then."""
    with closing(os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as handle:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.02)
        else:
            raise Refused.of("history-busy", type="busy")
        yield


def read(call: Call, args: HistoryRequest) -> list[dict[str, object]]:
    """The newest `last` entries of the record in `state_dir`, oldest first. A line that is torn is left out."""
    try:
        handle = os.open(os.path.join(args["state_dir"], "history.jsonl"), FILE)
    except FileNotFoundError:
        return []
    with os.fdopen(handle, "rb") as file:
        lines = file.read(2 * LIMIT).splitlines()
    found = []
    for line in lines[-int(args["last"]) :]:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


CALLS = {"append": append, "read": read}
