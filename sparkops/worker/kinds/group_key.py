"""The node half of `group_key`: a key in a file that only root reads. Neither it nor a part of it travels back."""

import hmac
import os

from sparkops.core.group_keys import fingerprint
from sparkops.core.kind_messages import GroupKeyAct, GroupKeyAsk
from sparkops.core.messages import State
from sparkops.worker.calls import Call
from sparkops.worker.system import safe_path


def observe(ask: GroupKeyAsk) -> "dict[str, object] | None":
    """Type and mode, and whether it is the `shared` key: the one of the fingerprint that was asked for."""
    return safe_path.look(ask["path"], lambda place, present: _described(place, present, ask["fingerprint"]))


def _described(place: safe_path.Place, present: os.stat_result, wanted: str) -> dict[str, object]:
    sort = safe_path.sort_of(present.st_mode)
    if sort != "file":
        return {"type": sort}
    with os.fdopen(place.open(), "rb") as file:
        shared = hmac.compare_digest(fingerprint(file.read()), wanted)
    return {"type": sort, "mode": safe_path.permissions(present.st_mode), "shared": shared}


def converge(call: Call, ask: GroupKeyAsk, found: State, want: State, act: GroupKeyAct) -> None:
    """Write the key of the group, or remove the file."""
    with safe_path.explained(ask["path"]), safe_path.place(ask["path"]) as place:
        place.require("file")
        if want is None:
            place.remove()
        elif found is None or not found.get("shared"):
            safe_path.write(place, act["content"], mode=0o600)
        else:
            os.chmod(place.name, 0o600, dir_fd=place.folder, follow_symlinks=False)
