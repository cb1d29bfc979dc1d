"""Symbolic links on the node: replaced in one step; a real file or directory is never replaced by one."""

import os
from collections.abc import Mapping

from sparkops.core.kind_messages import PathAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call
from sparkops.worker.system import safe_path


def observe(ask: PathAsk) -> dict[str, object] | None:
    """Type, and for a link its target as it is written."""
    return safe_path.look(ask["path"], _described)


def _described(place: safe_path.Place, present: os.stat_result) -> dict[str, object]:
    sort = safe_path.sort_of(present.st_mode)
    target = {"target": os.readlink(place.name, dir_fd=place.folder)} if sort == "link" else {}
    return {"type": sort, **target}


def converge(call: Call, ask: PathAsk, found: State, want: State, act: Mapping[str, object]) -> None:
    """Bring the link from `found` to `want`."""
    with safe_path.explained(ask["path"]), safe_path.place(ask["path"]) as place:
        place.require("link")
        if want is None:
            place.remove()
        else:
            place.link(want["target"])
