"""What somebody put into a checkpoint's folder moves along when another one takes its place."""

import os
import stat

from sparkops.worker.verifying_sources import take_over


def carry(existing: int, ours: set[str], folder: str = ".") -> None:
    """Into the working directory: everything below the open folder that is not `ours` and not there already."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=existing)
    try:
        names = [name for name in os.listdir(here) if not (folder == "." and name == ".sparkops")]
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                carry(existing, ours, path)
            elif path not in ours and not os.path.lexists(path):
                os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
                if stat.S_ISLNK(status.st_mode):
                    os.symlink(os.readlink(name, dir_fd=here), path)
                elif stat.S_ISREG(status.st_mode):
                    take_over(f"/proc/self/fd/{here}/{name}", path)
    finally:
        os.close(here)
