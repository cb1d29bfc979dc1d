"""Small files written whole, folders synced, trees removed: on a node or here, with the rights of this process.

Standard library only: nodes run this module.
"""

import contextlib
import json
import os
from typing import Any


def write(path: str | os.PathLike[str], data: bytes, mode: int) -> None:
    """Write beside, fsync, rename: the old content or the new one, never a part.

    Raises OSError with the name of the file, and leaves nothing behind then.
    """
    beside = os.path.join(os.path.dirname(path), f".sparkops-{os.urandom(8).hex()}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def mapping(path: str) -> dict[str, Any]:
    """The mapping in a JSON file; {} where there is no file, or anything else in it."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def sync(folder: str) -> None:
    """Have a folder's names on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Remove a file, a link or a whole folder; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
        else:
            import shutil  # it loads all compressions, which an observation does not need

            shutil.rmtree(path)
