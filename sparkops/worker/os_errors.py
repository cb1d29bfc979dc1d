"""Errors of the operating system, and defects of ours, as text for the controller."""

import errno
import traceback


def describe(error: OSError) -> str:
    """An operating system's error for a person: `/etc/x: Permission denied`."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def hint(number: int | None, path: str) -> str:
    """What a person can do about an operating system's error at `path`; "" where that is not known."""
    return {
        errno.EROFS: "look at `dmesg` for disk errors, then `mount -o remount,rw` it",
        errno.ENOSPC: f"free some; see `df -h {path}`",
        errno.EDQUOT: "raise it, or free some space",
        errno.EACCES: "set `connection: {become: true}` for this node",
    }.get(number or 0, "")


def locate(error: BaseException) -> str:
    """A defect with the line that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"
