"""The verification index of a folder: which content was read in a file, so that unchanged files are not hashed again.

It maps a file's identity (size, mtime_ns, ctime_ns, inode, device) to the oid that was read there and to the time of
reading. It needs no paths: a folder can be renamed without losing its proof. It belongs to who publishes, not to the
folder's owner.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping

from sparkops.core import atomic
from sparkops.core.descriptors import closing, names
from sparkops.programs.checkpoints.folder import CheckpointFolder
from sparkops.programs.checkpoints.hashes import SPAN
from sparkops.programs.checkpoints.proof import identity, index_path, lasting
from sparkops.programs.progress import Listener, Reporter

MOST_PREFIXES = 1 << 16
"""Prefix digests that are stored of one folder, 4 TiB of spans."""
PREFIXES = ".prefixes.json"
"""How the name of the file of prefix digests beside an index ends."""
_PREFIX = re.compile("[0-9a-f]{64}")

Notice = tuple[str, dict[str, object]]
"""The id and arguments of a notice."""


class Index:
    """The index of one folder, a file below the state folder.

    `entries` maps identities to oid and time (seconds since the epoch; 0 where the clock was wrong and the time is
    still to come). `record` is the digest of the record that a build published in the folder: its owner could write
    another one there. `damaged` says why the file could not be read, or "".
    """

    def __init__(self, state_dir: str, folder: str) -> None:
        self.path = index_path(state_dir, folder)
        self._prefixes = self.path.removesuffix(".json") + PREFIXES
        self.folder = folder
        self.entries: dict[str, tuple[str, float]] = {}
        self.record = ""
        self.damaged = ""
        now = time.time()
        try:
            with open(self.path, encoding="utf-8") as file:
                stored = json.load(file)
            entries = {str(key): (str(oid), float(at)) for key, (oid, at) in stored["files"].items()}
            self.entries = {key: (oid, at if at <= now else 0.0) for key, (oid, at) in entries.items()}
            self.record = str(stored.get("record") or "")
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.damaged = f"{type(error).__name__}: {error}"

    @property
    def notices(self) -> list[Notice]:
        """`index-damaged` where the file could not be read."""
        args: dict[str, object] = {"path": self.path, "folder": self.folder, "why": self.damaged}
        return [("index-damaged", args)] if self.damaged else []

    def find(self, status: os.stat_result) -> tuple[str, float] | None:
        """The oid read at exactly this identity and when, or None."""
        return self.entries.get(identity(status))

    def known(self, since: float = 0.0) -> dict[str, str]:
        """The oids by identity of what was read since then."""
        return {mark: oid for mark, (oid, at) in self.entries.items() if at >= since}

    def note(self, mark: str, oid: str, at: float | None = None) -> None:
        """Remember what was read at an identity."""
        self.entries[mark] = (oid, time.time() if at is None else at)

    def follow(self, before: os.stat_result, now: os.stat_result) -> str:
        """What was read at one identity counts at another, where a link, rename or mode came between and nothing else;
        the new one, or ""."""
        read = self.find(before)
        if read is None or lasting(before) != lasting(now):
            return ""
        self.note(identity(now), *read)
        return identity(now)

    def save(self, keep: Iterable[str] | None = None) -> None:
        """Write it; with `keep`, only these identities."""
        if keep is not None:
            self.entries = {mark: self.entries[mark] for mark in keep if mark in self.entries}
        content: dict[str, object] = {"folder": self.folder, "files": self.entries}
        _write(self.path, {**content, "record": self.record} if self.record else content)

    def prefixes(self) -> dict[str, list[str]]:
        """The prefix digests by oid; in a file of their own, for an observation needs none of them."""
        stored = atomic.mapping(self._prefixes)
        found = stored.get("of")
        return found if isinstance(found, dict) and stored.get("span") == SPAN else {}

    def note_prefixes(self, oid: str, digests: list[object]) -> None:
        """Store a content's prefix digests at once: who hashed it may end before all is done."""
        stored = self.prefixes()
        if stored.get(oid) == digests or sum(map(len, stored.values())) + len(digests) > MOST_PREFIXES:
            return
        if all(isinstance(each, str) and _PREFIX.fullmatch(each) for each in digests):
            _write(self._prefixes, {"span": SPAN, "of": {**stored, oid: digests}})

    def drop_other_prefixes(self, oids: set[str]) -> None:
        """Remove the prefix digests of all other contents."""
        stored = self.prefixes()
        if not stored.keys() <= oids:
            left = {oid: digests for oid, digests in stored.items() if oid in oids}
            _write(self._prefixes, {"span": SPAN, "of": left})

    def forget(self) -> None:
        atomic.remove(self.path)
        atomic.remove(self._prefixes)


def _write(path: str, content: Mapping[str, object]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    atomic.write(path, json.dumps(content).encode(), 0o600)


def indexes(state_dir: str) -> Iterator[Index]:
    """Every index that stands there and can be read."""
    folder = os.path.join(state_dir, "verified")
    for name in names(folder):
        with contextlib.suppress(OSError):
            if not name.endswith(PREFIXES) and (found := atomic.mapping(os.path.join(folder, name)).get("folder")):
                yield Index(state_dir, str(found))


def files_below(handle: int) -> list[tuple[str, os.stat_result]]:
    """Every file below an open folder, by its path in it, with its status."""
    return [
        (os.path.normpath(os.path.join(folder, name)), os.stat(name, dir_fd=at, follow_symlinks=False))
        for folder, _, files, at in os.fwalk(".", dir_fd=handle, follow_symlinks=False)
        for name in files
    ]


def identities_below(handle: int) -> set[str]:
    """The identities of every file below an open folder."""
    return {identity(status) for _, status in files_below(handle)}


@contextlib.contextmanager
def preserved(state_dir: str, *folders: int) -> Iterator[None]:
    """Around acts that link, rename or unlink files of open folders: what was verified stays verified.

    Such an act changes a file's ctime, by its inode in every folder that has it; all indexes are brought up to date.
    """
    before = {identity(status): status for folder in folders for _, status in files_below(folder)}
    try:
        yield
    finally:
        for index in indexes(state_dir):
            _follow(index, {before[mark].st_ino: mark for mark in index.entries if mark in before}, before)


def _follow(index: Index, marks: dict[int, str], before: dict[str, os.stat_result]) -> None:
    handle = CheckpointFolder(index.folder).open() if marks else None
    if handle is None:
        return
    with closing(handle):
        now = [status for _, status in files_below(handle) if status.st_ino in marks]
    for status in now:
        index.follow(before[marks[status.st_ino]], status)
    index.save()


class IndexListener(Listener):
    """Hears a program that hashes: what it read goes into the index, its notices are collected for the result."""

    def __init__(self, job: Reporter, index: Index) -> None:
        super().__init__(job)
        self._index = index
        self.notices: list[Notice] = list(index.notices)

    def notice(self, id: str, args: Mapping[str, object]) -> None:
        self.notices.append((id, dict(args)))

    def record(self, value: object) -> None:
        """`{"hashed": [identity, oid]}` or `{"prefixes": [oid, digests]}`."""
        match value:
            case {"hashed": [mark, oid]}:
                self._index.note(str(mark), str(oid))
            case {"prefixes": [oid, list(digests)]}:
                self._index.note_prefixes(str(oid), digests)
