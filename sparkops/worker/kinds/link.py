"""Symbolic links on the node: replaced in one step; a real file or directory is never replaced by one."""

import contextlib
import os
from collections.abc import Mapping

from sparkops.core.kind_messages import PathAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call
from sparkops.worker.system import safe_path


def observe(ask: PathAsk) -> dict[str, object] | None:
    """Type, and for a link its target as it is written."""
    try:
        with safe_path.place(ask["path"]) as place:
            found = place.stat()
            if found is None:
                return None
            state: dict[str, object] = {"type": safe_path.sort_of(found.st_mode)}
            if state["type"] == "link":
                state["target"] = os.readlink(place.name, dir_fd=place.folder)
            return state
    except (FileNotFoundError, NotADirectoryError):
        return None


def converge(call: Call, ask: PathAsk, found: State, want: State, act: Mapping[str, object]) -> None:
    """Bring the link from `found` to `want`."""
    with safe_path.explained(ask["path"]), safe_path.place(ask["path"]) as place:
        present = place.stat()
        if present is not None and safe_path.sort_of(present.st_mode) != "link":
            raise safe_path.occupied(place.path, safe_path.sort_of(present.st_mode), "link")
        if want is None:
            os.unlink(place.name, dir_fd=place.folder)
            os.fsync(place.folder)
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.beside, dir_fd=place.folder)
        os.symlink(want["target"], place.beside, dir_fd=place.folder)
        safe_path.publish(place)
