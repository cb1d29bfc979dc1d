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
    try:
        with safe_path.place(ask["path"]) as place:
            found = place.stat()
            if found is None:
                return None
            state: dict[str, object] = {"type": safe_path.sort_of(found.st_mode)}
            if state["type"] == "file":
                state["mode"] = safe_path.permissions(found.st_mode)
                with os.fdopen(place.open(), "rb") as file:
                    state["shared"] = hmac.compare_digest(fingerprint(file.read()), ask["fingerprint"])
            return state
    except (FileNotFoundError, NotADirectoryError):
        return None


def converge(call: Call, ask: GroupKeyAsk, found: State, want: State, act: GroupKeyAct) -> None:
    """Write the key of the group, or remove the file."""
    with safe_path.explained(ask["path"]), safe_path.place(ask["path"]) as place:
        present = place.stat()
        if present is not None and safe_path.sort_of(present.st_mode) != "file":
            raise safe_path.occupied(place.path, safe_path.sort_of(present.st_mode), "file")
        if want is None:
            os.unlink(place.name, dir_fd=place.folder)
            os.fsync(place.folder)
        elif found is None or not found.get("shared"):
            safe_path.write(place, act["content"], mode=0o600, owner=(-1, -1))
        else:
            os.chmod(place.name, 0o600, dir_fd=place.folder, follow_symlinks=False)
