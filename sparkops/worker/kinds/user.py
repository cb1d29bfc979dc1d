"""Accounts on the node, through useradd, usermod and userdel; a home folder is never removed."""

import errno
import grp
import itertools
import os
import pwd
import stat

from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import UserAct, UserAsk
from sparkops.core.messages import Fields, State
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.system import processes, safe_path

LINGER = "/var/lib/systemd/linger"
MOST_KEYS = 1 << 20
"""Bytes of an authorized_keys file that are read."""
NOW = 8
"""userdel's and usermod's exit status for a user who is logged in."""


def observe(ask: UserAsk) -> dict[str, object] | None:
    """uid, group, groups (further ones), home, shell, linger, and which of the asked `keys` may log in."""
    name = ask["name"]
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    state = {
        "uid": entry.pw_uid,
        "group": safe_path.group_name(entry.pw_gid, None),
        "groups": sorted(each.gr_name for each in grp.getgrall() if name in each.gr_mem),
        "home": entry.pw_dir,
        "shell": entry.pw_shell,
        "linger": os.path.exists(os.path.join(LINGER, name)),
    }
    if ask["keys"]:
        present = {identity(line) for line in _read_keys(entry.pw_dir).splitlines()}
        state["authorized_keys"] = [key for key in ask["keys"] if identity(key) in present]
    return state


def identity(line: str) -> tuple[str, str] | None:
    """Type and key of a line of authorized_keys, whatever options and comment stand around; None for other lines."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    for word, following in itertools.pairwise(words):
        if word.startswith(("ssh-", "ecdsa-", "sk-")) and following.startswith("AAAA"):
            return word, following
    return None


def with_keys(present: str, keys: list[str]) -> str:
    """The text of authorized_keys with those of `keys` that it lacks at its end; nothing of it is lost."""
    known = {identity(line) for line in present.splitlines()}
    missing = [key for key in dict.fromkeys(keys) if identity(key) not in known]
    if not missing:
        return present
    return present + ("" if not present or present.endswith("\n") else "\n") + "\n".join(missing) + "\n"


def _read_keys(home: str) -> str:
    path = os.path.join(home, ".ssh", "authorized_keys")
    try:
        with safe_path.place(path) as place, os.fdopen(place.open(), "rb") as file:
            data = file.read(MOST_KEYS + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if len(data) > MOST_KEYS:
        raise Unknown.of("file-too-large", path=path, limit=MOST_KEYS)
    return data.decode("utf-8", "surrogateescape")


def converge(call: Call, ask: UserAsk, found: State, want: State, act: UserAct) -> None:
    """Bring the account from `found` to `want`. `act`: `system`, and `exact_groups` to take other groups away."""
    name = ask["name"]
    if want is None:
        _remove(name)
        return
    _need_groups(want)
    if found is None:
        processes.run(["useradd", *_new(want, act), "--", name])
    else:
        options = _changed(found, want, act["exact_groups"])
        if options:
            _busy(["usermod", *options, "--", name], name)
    if "linger" in want and want["linger"] != (found or {}).get("linger", False):
        processes.run(["loginctl", "enable-linger" if want["linger"] else "disable-linger", name])
    if want.get("authorized_keys"):
        _write_keys(pwd.getpwnam(name), want["authorized_keys"])


def _need_groups(want: Fields) -> None:
    for group in [*want.get("groups", []), *([want["group"]] if "group" in want else [])]:
        try:
            grp.getgrgid(int(group)) if group.isdecimal() else grp.getgrnam(group)
        except KeyError:
            raise Refused.of("group-missing", group=group) from None


def _new(want: Fields, act: UserAct) -> list[str]:
    options = ["--system"] if act["system"] else ["--create-home"]
    for key, option in (("uid", "--uid"), ("group", "--gid"), ("home", "--home-dir"), ("shell", "--shell")):
        if key in want:
            options += [option, str(want[key])]
    if want.get("groups"):
        options += ["--groups", ",".join(want["groups"])]
    if "shell" not in want:
        options += ["--shell", "/usr/sbin/nologin" if act["system"] else "/bin/bash"]
    return options


def _changed(found: Fields, want: Fields, exact: bool) -> list[str]:
    options: list[str] = []
    for key, option in (("uid", "--uid"), ("group", "--gid"), ("home", "--home"), ("shell", "--shell")):
        if key in want and want[key] != found[key]:
            options += [option, str(want[key])]
    if "groups" in want:
        groups = set(want["groups"]) if exact else {*want["groups"], *found["groups"]}
        if groups != set(found["groups"]):
            options += ["--groups", ",".join(sorted(groups))]
    return options


def _remove(name: str) -> None:
    if name in ("root", os.environ.get("SUDO_USER")) or pwd.getpwnam(name).pw_uid == os.getuid():
        raise Refused.of("user-is-own", user=name)
    linger = os.path.join(LINGER, name)
    if os.path.exists(linger):
        processes.run(["loginctl", "disable-linger", name])
    _busy(["userdel", "--", name], name)


def _busy(argv: list[str], name: str) -> None:
    try:
        processes.run(argv)
    except Refused as error:
        if error.values.get("status") == NOW:
            raise Refused.of("user-has-processes", detail=error.detail, user=name) from None
        raise


def _write_keys(entry: pwd.struct_passwd, keys: list[str]) -> None:
    """Add keys in ~/.ssh, which is the user's: made and written by descriptors, so that no link leads elsewhere."""
    path = os.path.join(entry.pw_dir, ".ssh", "authorized_keys")
    owner = (entry.pw_uid, entry.pw_gid)
    with safe_path.explained(path):
        with safe_path.place(os.path.dirname(path)) as place:
            if place.stat() is None:
                os.mkdir(place.name, 0o700, dir_fd=place.folder)
                with closing(place.open(os.O_RDONLY | os.O_DIRECTORY)) as handle:
                    os.fchown(handle, *owner)
        with safe_path.place(path) as place:
            status = place.stat()
            if status is not None and not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ELOOP, "authorized_keys is no regular file", path)
            text = with_keys(_read_keys(entry.pw_dir), keys)
            mode = 0o600 if status is None else stat.S_IMODE(status.st_mode) & 0o755
            safe_path.write(place, text.encode("utf-8", "surrogateescape"), mode=mode, owner=owner)
