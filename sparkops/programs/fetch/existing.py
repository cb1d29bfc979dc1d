"""The published folder as the fetch program sees it: read through an open descriptor, hashed, linked from."""

import os
import shlex
import stat

from sparkops.core.descriptors import FILE, closing
from sparkops.core.messages import Refused
from sparkops.programs import users
from sparkops.programs.checkpoints.folder import status_of
from sparkops.programs.checkpoints.hashes import read_oid
from sparkops.programs.checkpoints.local_sources import take_over
from sparkops.programs.checkpoints.proof import RECORD, identity
from sparkops.programs.parallel import on_all_cores
from sparkops.programs.progress import Tracker
from sparkops.programs.protocol import Output

File = tuple[str, int, str]
"""Path, bytes and oid."""


class ExistingFolder:
    """The folder behind `handle`; None where there is none.

    `verified` maps the paths that hold what they should to the identities that were read; `hashed` are the bytes that
    had to be read; `links` says whether there is a link in a file's place; `unreadable` are paths that this process may
    not read, which count as missing.
    """

    def __init__(self, handle: int | None, output: Output) -> None:
        self.handle, self._output = handle, output
        self.verified: dict[str, str] = {}
        self.hashed = 0
        self.links = False
        self.unreadable: list[str] = []

    def status(self, path: str) -> os.stat_result | None:
        """The status of a file; None where there is none."""
        if self.handle is None:
            return None
        try:
            return status_of(path, self.handle)
        except PermissionError:
            self._deny(path)
            return None

    @property
    def writable(self) -> bool:
        """Whether this process may write a record into the folder."""
        folders = [".", os.path.dirname(RECORD)]
        return all(
            self.status(folder) is None or os.access(folder, os.W_OK | os.X_OK, dir_fd=self.handle)
            for folder in folders
        )

    def denied(self, folder: str) -> dict[str, object]:
        """The arguments of `files-unreadable`; `folder` is the path that people know."""
        paths = sorted(os.path.join(folder, path) for path in self.unreadable)
        return {"user": users.name_of(os.getuid()), "files": paths, "quoted": shlex.join(paths)}

    def require(self, folder: str) -> None:
        """Raises Refused `checkpoint-folder-unreadable` where this process may not look into it."""
        if self.handle is not None and not os.access(".", os.R_OK | os.X_OK, dir_fd=self.handle):
            raise Refused.of(
                "checkpoint-folder-unreadable",
                user=users.name_of(os.getuid()),
                folder=folder,
                quoted=shlex.quote(folder),
            )

    def _deny(self, path: str) -> None:
        if path not in self.unreadable:
            self.unreadable.append(path)

    def open(self, path: str) -> int:
        """A descriptor for reading."""
        return os.open(path, FILE, dir_fd=self.handle)

    def verify(self, files: list[File], known: dict[str, str]) -> None:
        """Find out which of the files hold what they should; reads those whose identity is not in `known`."""
        unsure: list[File] = []
        for path, size, oid in files:
            status = self.status(path)
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != size:
                self.links = self.links or (status is not None and stat.S_ISLNK(status.st_mode))
                continue
            found = known.get(identity(status))
            if found == oid:
                self.verified[path] = identity(status)
            elif found is None or found.partition(":")[0] != oid.partition(":")[0]:
                unsure.append((path, size, oid))
        self.hashed = sum(size for _, size, _ in unsure)
        tracker = Tracker(self._output, "verifying", self.hashed)
        on_all_cores(lambda file: self._verify(file, tracker), unsure)

    def _verify(self, file: File, tracker: Tracker) -> None:
        path, size, oid = file
        try:
            handle = self.open(path)
        except PermissionError:
            self._deny(path)
            return
        with closing(handle):
            before = identity(os.fstat(handle))
            if hash_unchanged(handle, oid, size, tracker, self._output) == oid:
                self.verified[path] = before

    def summary(self, files: list[File]) -> dict[str, object]:
        """After `verify`: `files`, `size` and `hashed` bytes in all, `missing` and `wrong` paths."""
        bad = [path for path, _, _ in files if path not in self.verified]
        missing = [path for path in bad if self.status(path) is None]
        return {
            "files": len(files),
            "size": sum(size for _, size, _ in files),
            "hashed": self.hashed,
            "missing": missing,
            "wrong": [path for path in bad if path not in missing],
        }

    def link(self, path: str, target: str) -> None:
        """Have a verified file in the working directory too. Raises Refused `file-being-written`."""
        with closing(self.open(path)) as handle:
            status = os.fstat(handle)
            same = identity(status) == self.verified[path]
            if same and take_over(f"/proc/self/fd/{self.handle}/{path}", target) == "link":
                same = os.lstat(target).st_ino == status.st_ino
            if not same:
                raise Refused.of("file-being-written", file=path)


def hash_recorded(handle: int, oid: str, size: int, tracker: Tracker, output: Output) -> str:
    """The oid of an open file; where it is `oid`, its prefix digests are recorded."""
    return read_oid(handle, oid, size, tracker.read, lambda digests: record_prefixes(output, oid, digests))


def hash_unchanged(handle: int, oid: str, size: int, tracker: Tracker, output: Output) -> str:
    """The oid of an open file, recorded; "" where the file changed meanwhile."""
    before = identity(os.fstat(handle))
    found = hash_recorded(handle, oid, size, tracker, output)
    if identity(os.fstat(handle)) != before:
        return ""
    output.record({"hashed": [before, found]})
    return found


def record_prefixes(output: Output, oid: str, digests: list[str]) -> None:
    """Have the prefix digests of a verified content recorded."""
    if digests:
        output.record({"prefixes": [oid, digests]})
