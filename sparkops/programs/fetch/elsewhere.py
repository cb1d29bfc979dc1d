"""What other folders of ours are verified to hold, as hard links in a staging folder, so that it is not fetched again.

It needs the rights of who publishes, since the owner of the files has no way through the state folder.
"""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator, Sequence

from sparkops.core.messages import Refused
from sparkops.programs.checkpoints.folder import CheckpointFolder
from sparkops.programs.checkpoints.index import Index, files_below, indexes
from sparkops.programs.checkpoints.proof import identity
from sparkops.programs.fetch.partial_file import Content, open_store

Holder = tuple[Index, int]
"""The index of a folder, and the folder, open."""


@contextlib.contextmanager
def holders(wanted: set[str], index: Index, state_dir: str) -> Iterator[list[Holder]]:
    """The other folders of ours that were verified to hold some of `wanted` (oids)."""
    with contextlib.ExitStack() as opened:
        found: list[Holder] = []
        for other in indexes(state_dir) if wanted else ():
            if other.folder == index.folder or wanted.isdisjoint(other.known().values()):
                continue
            with contextlib.suppress(Refused):
                if (folder := CheckpointFolder(other.folder).open()) is not None:
                    opened.callback(os.close, folder)
                    found.append((other, folder))
        yield found


def link(holders: Sequence[Holder], staging: int, owner: pwd.struct_passwd, wanted: set[str], index: Index) -> int:
    """Link what is `wanted` into the staging folder of `index`, which notes it as read; how many were linked.

    Only files of the same owner are, from the same file system, as they were when they were verified.
    """
    linked: set[str] = set()
    store = open_store(staging)
    for other, folder in holders:
        for path, status in files_below(folder):
            oid, at = other.find(status) or ("", 0.0)
            usable = stat.S_ISREG(status.st_mode) and status.st_uid == owner.pw_uid and status.st_size
            if not usable or oid not in wanted - linked:
                continue
            name = os.path.basename(Content(oid, status.st_size).place)
            with contextlib.suppress(OSError):  # another file system, or the content is there already
                os.link(path, name, src_dir_fd=folder, dst_dir_fd=store, follow_symlinks=False)
                index.note(identity(os.stat(name, dir_fd=store, follow_symlinks=False)), oid, at)
                linked.add(oid)
    os.close(store)
    return len(linked)
