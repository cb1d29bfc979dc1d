"""The node's lock: a flock held by this process, so that the kernel drops it when the process is gone."""

import fcntl
import json
import os
import time

from sparkops.core.kind_messages import StateAsk
from sparkops.core.messages import Reason
from sparkops.core.request_messages import LockRequest
from sparkops.worker.calls import Call, Refused
from sparkops.worker.record import own_folder

_held: dict[str, int] = {}


def acquire(call: Call, args: LockRequest) -> dict[str, float]:
    """Take the lock of `state_dir` without waiting, and write the holder beside it.

    Raises Refused `busy` naming the present holder, and where the folder can't be used.
    """
    folder = args["state_dir"]
    own_folder.make(folder)
    with own_folder.explained(folder):
        handle = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 4096, 0).decode(errors="replace")
        os.close(handle)
        raise _busy(text) from None
    since = time.time()
    os.ftruncate(handle, 0)
    try:
        os.pwrite(handle, json.dumps({**args["holder"], "since": since}).encode(), 0)
    except OSError as error:
        os.close(handle)
        raise OSError(error.errno, error.strerror, folder) from None
    _held[folder] = handle
    return {"since": since}


def holder(call: Call, args: StateAsk) -> dict[str, object] | None:
    """Who holds the lock of `state_dir` now: what `acquire` was told, `{}` where that is not written yet, else None."""
    text = _holder(args["state_dir"])
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def locked(folder: str) -> Reason | None:
    """Why another run could not have the lock of `folder` now; None where nobody or this process holds it."""
    text = None if folder in _held else _holder(folder)
    return None if text is None else _busy(text).reason


def _holder(folder: str) -> str | None:
    """What stands in the lock that is held. The kernel's list of locks is read; trying the lock would make a run that
    begins meanwhile see it busy. Raises Refused where it can't be read, with the path that is in the way."""
    with own_folder.explained(folder):
        try:
            with open(os.path.join(folder, "lock"), encoding="utf-8", errors="replace") as file:
                number, text = os.fstat(file.fileno()).st_ino, file.read(4096)
        except FileNotFoundError:
            return None
        with open("/proc/locks", encoding="ascii") as locks:
            held = any("FLOCK" in line and f":{number} " in line for line in locks)
    return text if held else None


def release(call: Call, args: StateAsk) -> None:
    handle = _held.pop(args["state_dir"], None)
    if handle is not None:
        os.ftruncate(handle, 0)
        os.close(handle)


def _busy(text: str) -> Refused:
    try:
        holder = json.loads(text)
        age = max(0, int(time.time() - holder["since"]))
        args = {"who": holder["who"], "machine": holder["from"], "seconds": age, "command": holder["command"]}
    except (ValueError, KeyError, TypeError):
        return Refused.of("node-locked-by-unknown", type="busy")
    return Refused.of("node-locked", type="busy", **args)


CALLS = {"acquire": acquire, "holder": holder, "release": release}
