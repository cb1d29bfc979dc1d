"""The users of this machine by their names."""

import os
import pwd

from sparkops.core.messages import Refused


def find(name: str) -> pwd.struct_passwd:
    """The user of this name; "" is the one who connected (before sudo). Raises Refused `user-missing`."""
    try:
        if name:
            return pwd.getpwnam(name)
        return pwd.getpwuid(int(os.environ.get("SUDO_UID") or os.getuid()))
    except (KeyError, ValueError):
        raise Refused.of("user-missing", user=name or str(os.getuid())) from None


def name_of(uid: int) -> str:
    """The user of this id; the id itself where it is nobody's."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def owner_of(declared: str, folder: int | None) -> pwd.struct_passwd:
    """The declared user, else whose the open folder is, else who connected. Raises Refused `user-missing`."""
    if declared or folder is None:
        return find(declared)
    status = os.fstat(folder)
    try:
        return pwd.getpwuid(status.st_uid)
    except KeyError:
        return pwd.struct_passwd((str(status.st_uid), "", status.st_uid, status.st_gid, "", "/nonexistent", ""))
