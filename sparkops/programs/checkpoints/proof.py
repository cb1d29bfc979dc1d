"""What a checkpoint's files are by their statuses: for verifying them, and for starting an engine on them."""

import contextlib
import hashlib
import json
import os

RECORD = ".sparkops/manifest.json"
"""The record in a folder that says what it holds; its `files` are lists of path, bytes and oid."""
PROVEN = "proven"


def identity(status: os.stat_result) -> str:
    """What changes with every change of a file's content or attributes."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}:{status.st_dev}"


def lasting(status: os.stat_result) -> str:
    """The identity without ctime, which links, renames and other modes change."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}:{status.st_dev}"


def index_path(state_dir: str, folder: str) -> str:
    """Where the verification index of a folder stands (see index.py)."""
    return os.path.join(state_dir, "verified", f"{hashlib.sha256(folder.encode()).hexdigest()[:16]}.json")


def record_digest(folder: str) -> str:
    """SHA-256 of the record that says what a folder holds; "" without one. Raises OSError."""
    try:
        with open(os.path.join(folder, RECORD), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def marks(folder: str) -> dict[str, tuple[str, str, str]]:
    """By the record's paths: oid, identity, lasting identity ("" where nothing is). Raises OSError, ValueError."""
    with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
        recorded = json.load(file)["files"]
    found = {}
    for path, _, oid in recorded:
        found[path] = oid, "", ""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(os.path.join(folder, path), follow_symlinks=False)
            found[path] = oid, identity(status), lasting(status)
    return found


def seen(folder: str) -> str:
    """A digest of all files' lasting identities: another one where a file was written or replaced. "" if unreadable."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        files = {path: last for path, (_, _, last) in marks(folder).items()}
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return ""


def standing(folder: str, state_dir: str) -> str:
    """PROVEN where the index has each file as it is now with the record's content; else what is `seen`."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(index_path(state_dir, folder), encoding="utf-8") as file:
            verified = json.load(file)["files"]
        files = marks(folder).values()
        if files and all(verified.get(mark, [""])[0] == oid for oid, mark, _ in files):
            return PROVEN
    return seen(folder)
