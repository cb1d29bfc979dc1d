"""Reading and editing `/etc/fstab`: pure functions over its bytes.

An edit changes the line of one mount point and keeps every other byte. It must not know files or programs.
"""

import re

from sparkops.programs.mounts import Entry, unescaped

_ESCAPED = {ord(char): f"\\{ord(char):03o}" for char in " \t\n\\#"}


def escaped(text: str) -> str:
    """A field as it stands in fstab."""
    return text.translate(_ESCAPED)


def entry(line: bytes) -> Entry | None:
    """The entry of an fstab line; None for a comment, a blank line and what fstab(5) would not take."""
    fields = re.split("[ \t]+", line.decode("utf-8", "surrogateescape").strip(" \t"))
    if len(fields) < 3 or fields[0].startswith("#"):
        return None
    options = tuple(fields[3].split(",")) if len(fields) > 3 else ("defaults",)
    passno = int(fields[5]) if len(fields) > 5 and re.fullmatch("[0-9]", fields[5]) else 0
    point = unescaped(fields[1])
    return Entry(unescaped(fields[0]), point.rstrip("/") or "/", fields[2], options, passno)


def entries(table: bytes, point: str) -> list[Entry]:
    """All entries of a mount point, in the file's order."""
    found = [entry(line) for line in table.split(b"\n")]
    return [each for each in found if each is not None and each.point == point]


def text(wanted: Entry) -> bytes:
    """The line of an entry, without its end."""
    fields = (escaped(wanted.source), escaped(wanted.point), wanted.fstype, ",".join(wanted.options))
    return (" ".join(fields) + f" 0 {wanted.passno}").encode("utf-8", "surrogateescape")


def edited(table: bytes, point: str, wanted: Entry | None) -> bytes:
    """The table with `wanted` as the only entry of `point`, in the place of the present one or at the end.

    With None the entry is taken out. All other lines stay byte for byte.
    """
    lines = table.split(b"\n")
    kept: list[bytes] = []
    placed = wanted is None
    for line in lines:
        present = entry(line)
        if present is None or present.point != point:
            kept.append(line)
        elif not placed and wanted is not None:
            kept.append(text(wanted))
            placed = True
    if not placed and wanted is not None:
        if kept[-1] == b"":
            kept.insert(len(kept) - 1, text(wanted))
        else:
            kept += [text(wanted), b""]
    return b"\n".join(kept)
