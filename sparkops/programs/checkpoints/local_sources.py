"""Where on this machine a wanted content may be already: Hugging Face caches and plain folders.

A source is only ever read. A candidate is a guess by name and size; the caller has to hash it.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator

from sparkops.core.descriptors import closing

_FICLONE = 0x40049409
_PIECE = 64 << 20
_TREE = 64 << 20
"""Characters of the longest listing that is read; a longer one is cut, and so unreadable."""
_BY_COPY = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP}


class Sources:
    """The declared places, as this process may read them.

    `dangling` collects links that lead nowhere, `resized` files of the right name and another size, `unreadable`
    listings of the hub's client that could not be parsed, `denied` what this process may not look into.
    """

    def __init__(self, places: list[str], repository: str, commit: str) -> None:
        self._commit = commit
        self._folders: list[str] = []
        self._blobs: list[str] = []
        self._shared: dict[str, list[str]] = {}
        self.dangling: list[str] = []
        self.resized: list[str] = []
        self.unreadable: list[str] = []
        self.denied: list[str] = []
        for place in places:
            self._add(os.path.expanduser(place), "models--" + repository.replace("/", "--"))

    def _add(self, place: str, name: str) -> None:
        """A place may be HF_HOME, its `hub/`, the folder of one repository there, or a plain folder with the files."""
        for repo in (place, os.path.join(place, name), os.path.join(place, "hub", name)):
            snapshots = os.path.join(repo, "snapshots")
            if not os.path.isdir(snapshots):
                continue
            found = sorted(_entries(snapshots), key=lambda each: each != self._commit)
            self._folders += [os.path.join(snapshots, each) for each in found]
            self._blobs.append(os.path.join(repo, "blobs"))
            for sha256, stored in self._stored(repo):
                self._shared.setdefault(sha256, []).append(stored)
        if not self._may_read(place):
            return
        if os.path.isdir(place):
            self._folders.append(place)

    def _may_read(self, place: str) -> bool:
        """Whether this process may read what is there, if anything is."""
        try:
            folder = stat.S_ISDIR(os.stat(place).st_mode)
            allowed = os.access(place, os.R_OK | (os.X_OK if folder else 0))
        except PermissionError:
            allowed = False
        except OSError:
            return True
        if not allowed and place not in self.denied:
            self.denied.append(place)
        return allowed

    def candidates(self, path: str, oid: str, size: int) -> Iterator[str]:
        """Readable regular files of that size that may be the content, links resolved, each once."""
        seen = set()
        digest = oid.partition(":")[2]
        names = [os.path.join(folder, path) for folder in self._folders]
        names += [os.path.join(folder, digest) for folder in self._blobs]
        for name in [*names, *self._shared.get(digest, ())]:
            real = os.path.realpath(name)
            if os.path.islink(name) and not os.path.exists(real) and name not in self.dangling:
                self.dangling.append(name)
            if real not in seen and self._may_read(real) and os.path.isfile(real):
                seen.add(real)
                if os.path.getsize(real) == size:
                    yield real
                else:
                    self.resized.append(name)

    def _stored(self, repo: str) -> Iterator[tuple[str, str]]:
        """SHA-256 and path of what the listings of a repository say that the store shared by all repositories holds.

        That store names files by their xet hash; the client's own listings (`trees/COMMIT.json`, since 2.x) have both.
        """
        trees = os.path.join(repo, "trees")
        for name in _entries(trees):
            path = os.path.join(trees, name)
            try:
                with open(path, encoding="utf-8") as file:
                    found = [
                        (str(each.get("lfs_sha256")), str(each.get("xet_hash")))
                        for each in json.loads(file.read(_TREE))["files"].values()
                    ]
            except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
                self.unreadable.append(path)
                continue
            for sha256, xet in found:
                if xet.isalnum():
                    yield sha256, os.path.join(os.path.dirname(repo), "blobs", xet[:2], xet)


def _entries(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def take_over(source: str, target: str) -> str:
    """Make `target` out of `source`: a hard link, else a shared copy, else a copy. Returns which of the three."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _BY_COPY:
            raise
    else:
        return "link"
    with (
        closing(os.open(source, os.O_RDONLY | os.O_CLOEXEC)) as reading,
        closing(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)) as writing,
    ):
        way = copy(reading, writing, os.fstat(reading).st_size, lambda _: None)
        os.fsync(writing)
        return way


def copy(reading: int, writing: int, count: int, report: Callable[[int], None]) -> str:
    """Copy the first `count` bytes of one open file into another, which is empty; shared where the file system can.

    Returns which of the two it was. `report` gets the bytes copied, may raise to stop.
    """
    try:
        fcntl.ioctl(writing, _FICLONE, reading)
    except OSError:
        pass
    else:
        report(count)
        return "shared copy"
    at = 0
    try:
        while at < count and (done := os.copy_file_range(reading, writing, min(_PIECE, count - at), at, at)):
            at += done
            report(done)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while at < count and (data := os.pread(reading, min(1 << 20, count - at), at)):
        done = os.pwrite(writing, data, at)
        at += done
        report(done)
    return "copy"
