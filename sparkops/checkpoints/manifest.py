"""What a checkpoint is: which files, of which sizes and contents, out of which commit. Its digest is its identity.

Pure values; it must not know hubs, nodes or folders. What comes from outside is checked here before anyone believes it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sparkops.core.digests import sha256
from sparkops.core.errors import SparkopsError

MOST_FILES = 100_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OID = re.compile(r"sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class ManifestError(SparkopsError):
    """A list of files that must not be believed: hostile, contradictory or empty."""


@dataclass(frozen=True, slots=True, order=True)
class ManifestFile:
    """One file: its path with `/`, its size in bytes, its content as `sha256:HEX` or `git-sha1:HEX` (a git blob's)."""

    path: str
    size: int
    oid: str

    def holds(self, data: bytes) -> bool:
        """Whether this is its content."""
        sort, _, wanted = self.oid.partition(":")
        git = b"blob %d\0" % len(data)
        made = hashlib.sha256(data) if sort == "sha256" else hashlib.sha1(git + data, usedforsecurity=False)
        return made.hexdigest() == wanted


@dataclass(frozen=True)
class Manifest:
    """A commit's files, in order of their paths. Raises ManifestError for what no checkpoint may be."""

    repository: str
    commit: str
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        where = f"{self.repository}@{self.commit[:12]}"
        if not is_repository(self.repository):
            raise ManifestError.of("hub-repository-name-invalid", repository=self.repository)
        if not is_commit(self.commit):
            raise ManifestError.of("commit-invalid", where=where, commit=self.commit)
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        if len(self.files) > MOST_FILES:
            raise ManifestError.of("manifest-too-long", where=where, count=len(self.files), limit=MOST_FILES)
        _check(self.files, where)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @cached_property
    def canonical(self) -> str:
        """The manifest as JSON, the same text for the same manifest; this text stands in the folder on the node."""
        files = [[file.path, file.size, file.oid] for file in self.files]
        value = {"version": 1, "repository": self.repository, "commit": self.commit, "files": files}
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @cached_property
    def digest(self) -> str:
        """The identity: `sha256:` and the SHA-256 of the canonical text."""
        return sha256(self.canonical.encode())

    def chosen(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Manifest:
        """Only the files that match one of `include` (none: all) and none of `exclude`, as the hub's client does it.

        A pattern that ends in `/` means all in that folder. Raises ManifestError where nothing is left.
        """
        chosen = tuple(
            file
            for file in self.files
            if (not include or _matches(file.path, include)) and not _matches(file.path, exclude)
        )
        if not chosen:
            raise ManifestError.of(
                "manifest-choice-empty",
                where=f"{self.repository}@{self.commit[:12]}",
                include=list(include),
                exclude=list(exclude),
                files=[file.path for file in self.files],
                count=len(self.files),
            )
        return Manifest(self.repository, self.commit, chosen)


def parse(text: str) -> Manifest:
    """The manifest of a canonical text. Raises ManifestError."""
    try:
        value: Any = json.loads(text)
        files = tuple(ManifestFile(path, size, oid) for path, size, oid in value["files"])
        repository, commit = value["repository"], value["commit"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ManifestError.of("manifest-unreadable") from None
    if not isinstance(repository, str) or not isinstance(commit, str):
        raise ManifestError.of("manifest-unreadable")
    return Manifest(repository, commit, files)


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit, which never moves."""
    return _COMMIT.fullmatch(revision) is not None


def is_repository(name: str) -> bool:
    """Whether it can be the name of a repository: `ORG/NAME`, or `NAME` alone."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name and "--" not in name


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, each + "*" if each.endswith("/") else each) for each in patterns)


def _check(files: Sequence[ManifestFile], where: str) -> None:
    paths: set[str] = set()
    folders: set[str] = set()
    sizes: dict[str, int] = {}

    def refuse(path: object, why: str) -> ManifestError:
        return ManifestError.of("manifest-file-invalid", where=where, path=str(path), why=why)

    for file in files:
        if not isinstance(file.path, str) or (fault := _fault(file.path)):
            raise refuse(file.path, "not a path" if not isinstance(file.path, str) else fault)
        if type(file.size) is not int or not 0 <= file.size < 1 << 60:
            raise refuse(file.path, f"{file.size!r} is not a size")
        if not isinstance(file.oid, str) or _OID.fullmatch(file.oid) is None:
            raise refuse(file.path, f"{file.oid!r} is not a hash of content")
        if file.path in paths:
            raise refuse(file.path, "it is listed twice")
        if sizes.setdefault(file.oid, file.size) != file.size:
            raise refuse(file.path, "one content with two sizes")
        paths.add(file.path)
        parts = file.path.split("/")
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
    if clash := paths & folders:
        raise refuse(min(clash), "it is both a file and a folder")


def _fault(path: str) -> str:
    parts = path.split("/")
    if not path or len(path) > 1024 or any(len(part.encode(errors="replace")) > 255 for part in parts):
        return "empty or too long"
    if path.startswith("/") or "" in parts:
        return "absolute, or with an empty part"
    if "." in parts or ".." in parts:
        return "it leads out of its folder"
    if "\\" in path or any(unicodedata.category(character)[0] == "C" for character in path):
        return "control characters or backslashes"
    if parts[0] == ".sparkops":
        return "a name of sparkops"
    return ""
