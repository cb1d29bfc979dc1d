"""Files by their descriptors: opened without following a link, closed, written at a position; and names in a folder.

Standard library only: nodes run this module.
"""

import contextlib
import os
from collections.abc import Iterator

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = FILE | os.O_DIRECTORY
"""Flags for reading what stands at a path itself."""


@contextlib.contextmanager
def closing(handle: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield handle
    finally:
        os.close(handle)


def write(handle: int, data: bytes | memoryview, position: int) -> None:
    """All of `data` at its position."""
    view = memoryview(data)
    while view:
        wrote = os.pwrite(handle, view, position)
        view, position = view[wrote:], position + wrote


def names(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder. Raises OSError otherwise."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []
