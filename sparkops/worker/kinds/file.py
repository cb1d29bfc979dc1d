"""Files on the node: content by digest, owner, group and mode; replaced as a whole, never written into.

Secret content comes with the question and is compared here, so that neither it nor a digest of it travels back. What
is not for everyone to read may be a secret that was declared before, or by someone else: it does not travel either.
"""

import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import FileAct, FileAsk
from sparkops.core.messages import Fields, State
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import processes, safe_path
from sparkops.worker.system.root import UNITS

SHOWN = 64 << 10
"""Bytes of present text that travel back for a diff."""
ALWAYS_HASHED = 1 << 20
"""Bytes up to which a file of another size than the declared content is hashed all the same, to be told apart."""


def observe(ask: FileAsk) -> dict[str, object] | None:
    """Type, owner, group, mode and, where content was declared, its digest; with `text` where it differs and is small.

    Of a file that not everyone may read, neither digest nor text of another content is told.

    `ask`: path; owner and group as declared (or None); and `sha256` with `size`, or `secret` with the bytes.
    """
    return safe_path.look(ask["path"], lambda place, present: _described(place, present, ask))


def _described(place: safe_path.Place, present: os.stat_result, ask: FileAsk) -> dict[str, object]:
    state = safe_path.metadata(present, ask)
    if state["type"] == "file" and ("sha256" in ask or "secret" in ask):
        handle = place.open()
        with os.fdopen(handle, "rb") as file:
            state.update(_content(file, os.fstat(handle), ask))
    return state


def _content(file: BinaryIO, found: os.stat_result, ask: FileAsk) -> dict[str, object]:
    if "secret" in ask:
        equal = found.st_size == len(ask["secret"]) and hmac.compare_digest(file.read(), ask["secret"])
        return {"content": "declared" if equal else "other"}
    if found.st_size != ask["size"] and found.st_size > ALWAYS_HASHED:
        return {"content": f"other ({found.st_size} bytes, modified at {found.st_mtime_ns})", "size": found.st_size}
    digest = hashlib.sha256()
    kept = b""
    while part := file.read(1 << 20):
        digest.update(part)
        kept = kept + part if len(kept) <= SHOWN else kept
    if digest.hexdigest() != ask["sha256"] and not found.st_mode & stat.S_IROTH:
        return {"content": f"other (not readable by all, modified at {found.st_mtime_ns})"}
    state: dict[str, object] = {"content": "sha256:" + digest.hexdigest(), "size": found.st_size}
    if digest.hexdigest() != ask["sha256"] and len(kept) <= SHOWN:
        text = _text(kept)
        if text is not None:
            state["text"] = text
    return state


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def converge(call: Call, ask: FileAsk, found: State, want: State, act: FileAct) -> None:
    """Bring the file from `found` to `want`. `act`: `content` bytes where not secret, `validate` argv or empty."""
    with safe_path.explained(ask["path"]), safe_path.place(ask["path"]) as place:
        if want is None:
            _remove(place)
            return
        present = place.require("file")
        other = (found or {}).get("content") != want.get("content")
        if present is None or ("content" in want and (other or act.get("again"))):
            _replace(place, present, ask, want, act)
        else:
            _set(place, want)


def _remove(place: safe_path.Place) -> None:
    present = place.stat()
    if present is not None and stat.S_ISDIR(present.st_mode):
        raise Refused.of("file-is-directory", path=place.path)
    place.remove()
    if place.path.startswith(UNITS + "/") and os.path.isdir("/run/systemd/system"):
        processes.run(["systemctl", "daemon-reload"])  # a drop-in that is gone is in effect until then


def _replace(place: safe_path.Place, present: os.stat_result | None, ask: FileAsk, want: Fields, act: FileAct) -> None:
    data: bytes = ask["secret"] if "secret" in ask else act.get("content", b"")
    uid, gid = safe_path.owner_ids(want.get("owner"), want.get("group"))
    mode = 0o600 if "secret" in ask else 0o644
    if present is not None:
        uid, gid = (present.st_uid if uid == -1 else uid), (present.st_gid if gid == -1 else gid)
        mode = stat.S_IMODE(present.st_mode)
    mode = int(want["mode"], 8) if "mode" in want else mode
    safe_path.write(place, data, mode=mode, owner=(uid, gid), check=_check(act.get("validate"), "secret" in ask))


def _check(argv: list[str] | None, secret: bool) -> Callable[[str], None] | None:
    if not argv:
        return None

    def run(path: str) -> None:
        try:
            processes.run([word.replace("{path}", path) for word in argv], timeout=60.0)
        except Refused as error:
            if secret:
                raise Refused.of("secret-content-invalid", program=argv[0]) from None
            raise Refused.of("content-invalid", detail=error.detail, reason=error.reason) from None

    return run


def _set(place: safe_path.Place, want: Fields) -> None:
    uid, gid = safe_path.owner_ids(want.get("owner"), want.get("group"))
    with closing(place.open()) as handle:
        present = os.fstat(handle)
        if present.st_nlink > 1 and safe_path.others_write(place.folder):
            raise Refused.of("file-hard-linked", path=place.path, count=present.st_nlink)
        os.fchown(handle, uid, gid)
        if "mode" in want:
            os.fchmod(handle, int(want["mode"], 8))
        os.fsync(handle)
