"""Files here that a user named: replaced whole, a link kept; a device or a pipe is written into."""

from __future__ import annotations

import os
from pathlib import Path

from sparkops.core import atomic


def write(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write the old file or the whole new one, for whoever reads it meanwhile, with the mode of the old one.

    A `private` one is for this user only. Raises OSError with the name that was given.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    whole = path.resolve()
    mode = whole.stat().st_mode & 0o777 if whole.exists() else 0o666 & ~_umask()
    try:
        atomic.write(whole, data, 0o600 if private else mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
