"""Mounts on the node: the entry in `/etc/fstab`, and whether that very thing is mounted now."""

import os
import stat

from sparkops.core.kind_messages import MountAsk, Nothing
from sparkops.core.messages import State
from sparkops.programs import mounts
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import fstab, processes, safe_path
from sparkops.worker.system.root import at

FSTAB = "/etc/fstab"
MOUNTINFO = "/proc/self/mountinfo"
BY = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
OPPOSITES = {
    "ro": "rw",
    "rw": "ro",
    "exec": "noexec",
    "noexec": "",
    "suid": "nosuid",
    "nosuid": "",
    "dev": "nodev",
    "nodev": "",
    "atime": "noatime",
    "noatime": "",
    "nodiratime": "",
    "relatime": "",
}
"""Options that the kernel shows: "" where by the same word, else the word that contradicts them."""


def observe(ask: MountAsk, *, root: str = "/") -> dict[str, object] | None:
    """The entry (source, fstype, options, passno) and `mounted`: True, False, or words for another thing there.

    `without` names the declared options that the running mount lacks. Raises Unknown for an ambiguous fstab.
    """
    point = ask["path"]
    declared = fstab.entries(_read(at(root, FSTAB)), point)
    if len(declared) > 1:
        raise Unknown.of("fstab-ambiguous", file=FSTAB, count=len(declared), path=point)
    present = _mounted(point, root)
    if not declared and present is None:
        return None
    entry = declared[0] if declared else None
    return {
        "source": entry.source if entry else None,
        "fstype": entry.fstype if entry else None,
        "options": list(entry.options) if entry else None,
        "passno": entry.passno if entry else None,
        "mounted": False if present is None else _is(ask, present) or f"another: {present.source} ({present.fstype})",
        "without": [] if present is None else lacking(ask.get("options", []), present),
    }


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _mounted(point: str, root: str) -> mounts.Entry | None:
    """What is seen at the point. The point itself is not touched: an export whose server is silent would hold us."""
    folder, name = os.path.split(point)
    real = os.path.join(os.path.realpath(folder), name)
    table = _read(at(root, MOUNTINFO)).decode("utf-8", "surrogateescape")
    found = [each for each in mounts.mounts(table) if each.point == real]
    return found[-1] if found else None


def _is(ask: MountAsk, present: mounts.Entry) -> bool:
    """Whether what is mounted is what was declared: the same device, export or, for a bind, the same directory."""
    if "source" not in ask:
        return True
    if {"bind", "rbind"} & set(ask["options"]):
        return os.path.exists(ask["source"]) and os.path.samefile(ask["source"], ask["path"])
    if ask["fstype"] not in ("auto", present.fstype) and (ask["fstype"], present.fstype) != ("nfs", "nfs4"):
        return False
    return device(ask["source"]) == device(present.source)


def device(source: str) -> str:
    """A source with `UUID=…` and links resolved to the device, and an export without a final slash."""
    tag, _, value = source.partition("=")
    if tag in BY:
        source = os.path.join("/dev/disk", BY[tag], value.strip('"'))
    if source.startswith("/"):
        return os.path.realpath(source)
    return source.rstrip("/") or source


def lacking(options: list[str], present: mounts.Entry) -> list[str]:
    """The declared options that the kernel shows by a word of its own and that are not in effect."""
    shown = set(present.options) | ({"ro"} & set(present.wide))
    missing = []
    for option in options:
        if option in OPPOSITES:
            contradicted = OPPOSITES[option]
            if (contradicted in shown) if contradicted else (option not in shown):
                missing.append(option)
    return missing


def converge(call: Call, ask: MountAsk, found: State, want: State, act: Nothing, *, root: str = "/") -> None:
    """Bring the entry and the mount from `found` to `want`. What is in use, or another thing, is not unmounted."""
    point, present = ask["path"], (found or {}).get("mounted", False)
    if want is None:
        if present:
            _unmount(point)
        _edit(point, None, root)
        return
    if isinstance(present, str):
        raise Refused.of("mount-occupied", path=point, found=present.removeprefix("another: "), source=want["source"])
    if want["mounted"] and not present and not os.path.isdir(point):
        raise Refused.of("mount-point-missing", path=point)
    entry = mounts.Entry(want["source"], point, want["fstype"], tuple(want["options"]), want["passno"])
    _edit(point, entry, root)
    if not want["mounted"]:
        if present:
            _unmount(point)
    elif not present:
        processes.run(["mount", "--", point])
    elif (found or {}).get("without"):
        processes.run(["mount", "-o", "remount", "--", point])


def _unmount(point: str) -> None:
    try:
        processes.run(["umount", "--", point])
    except Refused as error:
        if "busy" in error.detail:
            raise Refused.of("mount-busy", detail=error.detail, path=point) from None
        raise


def _edit(point: str, wanted: mounts.Entry | None, root: str) -> None:
    table = at(root, FSTAB)
    before = _read(table)
    after = fstab.edited(before, point, wanted)
    present = fstab.entries(before, point)
    if after == before or present == ([wanted] if wanted else []):
        return
    with safe_path.explained(table), safe_path.place(table) as place:
        status = place.stat()
        mode = 0o644 if status is None else stat.S_IMODE(status.st_mode)
        owner = (-1, -1) if status is None else (status.st_uid, status.st_gid)
        safe_path.write(place, after, mode=mode, owner=owner)
    if os.path.isdir(at(root, "/run/systemd/system")):
        processes.run(["systemctl", "daemon-reload"])
