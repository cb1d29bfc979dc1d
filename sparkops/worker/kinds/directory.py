"""Directories on the node: owner, group and mode; removed only when empty."""

import errno
import os
import stat

from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import DirectoryAct, DirectoryAsk
from sparkops.core.messages import Fields, State
from sparkops.worker.calls import Call
from sparkops.worker.system import safe_path


def observe(ask: DirectoryAsk) -> dict[str, object] | None:
    """Type, owner, group and mode of `path`; owner and group in the form in which they were declared."""
    return safe_path.look(ask["path"], lambda _, present: safe_path.metadata(present, ask))


def converge(call: Call, ask: DirectoryAsk, found: State, want: State, act: DirectoryAct) -> None:
    """Bring the directory from `found` to `want`. With `parents` in `act`, missing ones above it are made as root's."""
    with safe_path.explained(ask["path"]):
        if act.get("parents") and want is not None:
            _make_parents(ask["path"])
        with safe_path.place(ask["path"]) as place:
            present = place.require("directory")
            if want is None:
                os.rmdir(place.name, dir_fd=place.folder)
            else:
                _set(place, want, new=present is None)
            os.fsync(place.folder)


def _make_parents(path: str) -> None:
    parts = path.split("/")[1:-1]
    for count in range(1, len(parts) + 1):
        try:
            os.close(safe_path.open_folder("/" + "/".join(parts[:count])))
        except FileNotFoundError:
            with safe_path.place("/" + "/".join(parts[:count])) as place:
                os.mkdir(place.name, 0o755, dir_fd=place.folder)
                os.fsync(place.folder)


def _set(place: safe_path.Place, want: Fields, *, new: bool) -> None:
    """Owner before mode: changing the owner takes set-id bits away. A new one is nobody else's until it is right."""
    uid, gid = safe_path.owner_ids(want.get("owner"), want.get("group"))
    if new:
        os.mkdir(place.name, 0o700, dir_fd=place.folder)
    with closing(place.open(os.O_RDONLY | os.O_DIRECTORY)) as handle:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place.path)
        os.fchown(handle, uid, gid)
        mode = int(want["mode"], 8) if "mode" in want else 0o755 if new else None
        if mode is not None:
            os.fchmod(handle, mode)
        os.fsync(handle)
