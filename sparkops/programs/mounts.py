"""The mounts of this machine, as proc_pid_mountinfo(5) tells them."""

import re
from typing import NamedTuple

_OCTAL = re.compile(r"\\([0-7]{3})")


class Entry(NamedTuple):
    """One line of mountinfo, with `options` of the mount and `wide` of the whole file system; or of fstab(5)."""

    source: str
    point: str
    fstype: str
    options: tuple[str, ...]
    passno: int = 0
    wide: tuple[str, ...] = ()


def unescaped(text: str) -> str:
    """A field with its octal escapes (`\\040` for a blank) resolved."""
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), text)


def mounts(mountinfo: str) -> list[Entry]:
    """The mounts of a mountinfo text, in its order: of one point the last is seen."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if len(left) < 6 or len(right) < 2:
            continue
        wide = tuple(right[2].split(",")) if len(right) > 2 else ()
        found.append(Entry(unescaped(right[1]), unescaped(left[4]), right[0], tuple(left[5].split(",")), wide=wide))
    return found


def holding(mountinfo: str, path: str) -> Entry | None:
    """The mount that holds `path`, links resolved: the last one of the longest mount point."""
    inside = [each for each in mounts(mountinfo) if f"{path}/".startswith(each.point.rstrip("/") + "/")]
    return max(reversed(inside), key=lambda each: len(each.point), default=None)
