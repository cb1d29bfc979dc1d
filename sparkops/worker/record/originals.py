"""What stood at a path before sparkops first changed it: kept in the state folder, and put back by a removal.

A link's target stands in the claim itself; a file's content beside the records, readable for their owner alone.
"""

import hashlib
import os
import stat

from sparkops.core import atomic
from sparkops.core.descriptors import FILE
from sparkops.core.messages import Fields

FOLDER = "originals"
LIMIT = 1 << 20
"""Bytes of a file that are kept; a larger one is not."""


def keep(state_dir: str, key: str, path: str) -> dict[str, object]:
    """Keep what stands at the path; what the claim notes of it, empty where it is no link and no small file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return {}
    if stat.S_ISLNK(found.st_mode):
        return {"target": os.readlink(path)}
    if not stat.S_ISREG(found.st_mode) or found.st_size > LIMIT:
        return {}
    handle = os.open(path, FILE | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:  # it grew meanwhile
        return {}
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    os.makedirs(os.path.join(state_dir, FOLDER), mode=0o700, exist_ok=True)
    atomic.write(os.path.join(state_dir, FOLDER, name), data, 0o600)
    mode = stat.S_IMODE(found.st_mode)
    return {"file": name, "mode": mode, "uid": found.st_uid, "gid": found.st_gid, "mtime_ns": found.st_mtime_ns}


def put_back(state_dir: str, path: str, original: Fields) -> None:
    """Have it at its path again, with its owner, mode and time, in one step. Raises OSError, Refused."""
    from sparkops.worker.system import safe_path  # a job, which writes claims too, does without

    with safe_path.explained(path), safe_path.place(path) as place:
        if "target" in original:
            return place.link(original["target"])
        with open(os.path.join(state_dir, FOLDER, original["file"]), "rb") as file:
            data = file.read()
        safe_path.write(place, data, mode=original["mode"], owner=(original["uid"], original["gid"]))
        times = (original["mtime_ns"], original["mtime_ns"])
        return os.utime(place.name, ns=times, dir_fd=place.folder, follow_symlinks=False)


def forget(state_dir: str, entry: Fields) -> None:
    """Remove what was kept for a claim that ends."""
    if name := (entry.get("original") or {}).get("file"):
        atomic.remove(os.path.join(state_dir, FOLDER, name))
