"""Kernel parameters on the node: the value now (`/proc/sys`) and the one after the next start (`sysctl.d`).

The order in which the files are read, and which win, is that of sysctl.d(5): by file name over all folders, of equal
names the one in the first folder, of equal keys the last line.
"""

import contextlib
import errno
import os

from sparkops.core.descriptors import closing, names
from sparkops.core.kind_messages import Nothing, SysctlAsk
from sparkops.core.messages import State, unknown_of
from sparkops.worker.calls import Call, Refused
from sparkops.worker.facts.system import text
from sparkops.worker.system import safe_path
from sparkops.worker.system.root import at

PROC = "/proc/sys"
FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")


def observe_many(asks: dict[str, SysctlAsk], *, root: str = "/") -> dict[str, object]:
    """For each `key`: value, persisted (in our own file) and overridden_by (a later file that sets another value).

    With `absent` only our own file counts: without it the answer is None.
    """
    files = read_files([at(root, folder) for folder in FOLDERS])
    states: dict[str, object] = {}
    for identity, ask in asks.items():
        try:
            states[identity] = _state(ask, files, root)
        except OSError as error:
            states[identity] = unknown_of(error)
    return states


def _state(ask: SysctlAsk, files: list[tuple[str, dict[str, str]]], root: str) -> dict[str, object] | None:
    key = path_of(ask["key"])
    content = text(root, f"{FOLDERS[0]}/{ask['file']}")
    persisted = None if content is None else parse(content).get(key, "")
    if ask.get("absent"):
        return None if persisted is None else {"persisted": persisted}
    return {"value": running(key, root), "persisted": persisted, "overridden_by": overriding(key, ask["file"], files)}


def running(key: str, root: str) -> str | None:
    """The kernel's value of a parameter (named as a path below /proc/sys); None where this kernel has none."""
    found = text(root, f"{PROC}/{key}")
    return None if found is None else plain(found)


def path_of(key: str) -> str:
    """`net/ipv4/ip_forward` of a key in either spelling: what comes first, dot or slash, separates."""
    first = next((char for char in key if char in "./"), "/")
    return key if first == "/" else key.translate({ord("."): "/", ord("/"): "."})


def plain(value: object) -> str:
    """A value with its white space made single blanks, as the kernel reads it; a number may come from a fact."""
    return " ".join(str(value).split())


def parse(content: str) -> dict[str, str]:
    """The parameters that a sysctl.d file sets, by path; patterns and exclusions are left out."""
    found: dict[str, str] = {}
    for line in content.splitlines():
        line = line.strip()
        if not line or line[0] in "#;" or "=" not in line:
            continue
        key, _, value = line.partition("=")
        found[path_of(key.strip().removeprefix("-").strip())] = plain(value)
    return found


def read_files(folders: list[str]) -> list[tuple[str, dict[str, str]]]:
    """All sysctl.d files that count, in the order in which they are read: (path, what it sets)."""
    chosen: dict[str, str] = {}
    for folder in folders:
        for name in names(folder):
            if name.endswith(".conf"):
                chosen.setdefault(name, os.path.join(folder, name))
    files = []
    for name in sorted(chosen):
        with contextlib.suppress(FileNotFoundError), open(chosen[name], encoding="utf-8", errors="replace") as file:
            files.append((chosen[name], parse(file.read())))
    return files


def overriding(key: str, own: str, files: list[tuple[str, dict[str, str]]]) -> dict[str, str] | None:
    """The last file after `own` that sets the key, as {path, value}; None where ours is the last word."""
    later = [(path, values[key]) for path, values in files if os.path.basename(path) > own and key in values]
    return {"path": later[-1][0], "value": later[-1][1]} if later else None


def converge(call: Call, ask: SysctlAsk, found: State, want: State, act: Nothing, *, root: str = "/") -> None:
    """Set the value now, then for the next start: a value that the kernel refuses is not left in a file."""
    own = os.path.join(at(root, FOLDERS[0]), ask["file"])
    if want is None:
        with safe_path.explained(own), safe_path.place(own) as place:
            place.remove()
        return
    key, value = path_of(ask["key"]), plain(want["value"])
    if running(key, root) != value:
        _set(ask["key"], os.path.join(at(root, PROC), key), value)
    if (found or {}).get("persisted") != value:
        safe_path.put(own, f"# Written by sparkops\n{ask['key']} = {value}\n".encode(), 0o644)


def _set(key: str, path: str, value: str) -> None:
    try:
        with closing(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)) as handle:
            os.write(handle, (value + "\n").encode())
    except OSError as error:
        if not os.path.exists(path):
            raise Refused.of("sysctl-missing", key=key) from None
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ERANGE):
            raise Refused.of("sysctl-value-refused", key=key, value=value) from None
        raise Refused.of("sysctl-read-only", key=key, text=error.strerror or str(error)) from None
