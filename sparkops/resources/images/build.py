"""An image that is built on the node: its inputs, read and bounded on the controller, and the hash of all of them.

Equal inputs are the same image, known before anything is built. A folder's `.dockerignore` is read as Docker reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from sparkops.core.digests import sha256
from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import ImageAct, ImageAsk
from sparkops.core.secrets import Content, Secret
from sparkops.core.states import Observed
from sparkops.core.wording import Message
from sparkops.resources import validators
from sparkops.resources.images.reference import Reference

if TYPE_CHECKING:
    from sparkops.resources.images.origin import Logins

LABEL = "sparkops.build"
CONTEXT_LIMIT = 32 << 20
"""Bytes of all files of a build together: they travel in one frame. What is larger belongs into the base image."""
IGNORE_FILE = ".dockerignore"
_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """Built from a Dockerfile. `files` is the build context by path; `bases` are the images it starts from."""

    name: str
    dockerfile: str
    files: Mapping[str, bytes] = field(repr=False)
    args: Mapping[str, str]
    labels: Mapping[str, str]
    checks: tuple[tuple[str, ...], ...]
    platform: str | None
    bases: tuple[Reference, ...]

    digest: str | None = None
    like: None = None

    @classmethod
    def read(
        cls,
        name: str,
        content: str | Content | Secret,
        *,
        files: Mapping[str, object],
        args: Mapping[str, object],
        labels: Mapping[str, object],
        checks: Sequence[Sequence[str]],
        platform: str | None,
        folder: Path,
        where: str,
    ) -> BuiltImage:
        """The declared inputs with the files read; relative paths start at `folder`. Raises InventoryError."""
        dockerfile = _dockerfile(content, where)
        return cls(
            name=name,
            dockerfile=dockerfile,
            files=_context(files, folder, where),
            args=_texts(args, "args", where),
            labels=_texts(labels, "labels", where),
            checks=tuple(tuple(validators.words(each, "a check", where)) for each in checks),
            platform=platform,
            bases=_bases(dockerfile, where),
        )

    @property
    def build(self) -> str:
        """The hash of everything that goes in; credentials do not."""
        inputs = {
            "dockerfile": self.dockerfile,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()},
            "args": dict(self.args),
            "labels": dict(self.labels),
            "checks": [list(each) for each in self.checks],
            "platform": self.platform,
        }
        text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
        return sha256(text.encode())

    @property
    def transfer_key(self) -> str:
        return self.build

    @property
    def repositories(self) -> tuple[str, ...]:
        return tuple(each.repository for each in self.bases)

    def desired(self) -> dict[str, object]:
        return {"build": self.build}

    def arguments(self, logins: Logins) -> ImageAct:
        bases: list[ImageAsk] = []
        for each in self.bases:
            login = logins(each.repository)
            bases.append({**each.as_json(), "auth": login.as_json() if login else None})
        return {
            "how": "build",
            "attach": self.build,
            "dockerfile": self.dockerfile,
            "files": dict(self.files),
            "args": dict(self.args),
            "labels": {**self.labels, LABEL: self.build},
            "checks": [list(each) for each in self.checks],
            "bases": bases,
        }

    def sources(self) -> Mapping[str, str]:
        return {}

    def notices(self, found: Observed) -> tuple[Message, ...]:
        """Bases whose move would not be seen."""
        return tuple(
            Message.of("image-base-not-pinned", name=self.name, base=each.name)
            for each in self.bases
            if not each.digest
        )


def _dockerfile(value: str | Content | Secret, where: str) -> str:
    text = value.text if isinstance(value, Content) else value
    if isinstance(text, Secret):
        raise InventoryError.of("image-dockerfile-secret", where=where)
    return str(text)


def _bases(dockerfile: str, where: str) -> tuple[Reference, ...]:
    """The images that a Dockerfile begins from, its own stages left out."""
    stages: set[str] = {"scratch"}
    found: dict[Reference, None] = {}
    for base, stage in _FROM.findall(dockerfile):
        if base not in stages and "$" not in base:
            found[Reference.parse(base, where)] = None
        stages.add(stage)
    return tuple(found)


def _texts(value: Mapping[str, object], name: str, where: str) -> dict[str, str]:
    found = {}
    for key, each in value.items():
        if isinstance(each, Secret):
            raise InventoryError.of("image-build-secret", where=where, place=f"{name}.{key}")
        found[str(key)] = each if isinstance(each, str) else json.dumps(each)
    return found


def _context(value: Mapping[str, object], folder: Path, where: str) -> dict[str, bytes]:
    """The build context by path. Raises InventoryError."""
    found: dict[str, bytes] = {}
    for path, each in value.items():
        name = PurePosixPath(str(path).lstrip("/"))
        if ".." in name.parts or str(name) == "Dockerfile" or not str(path).strip("/"):
            raise InventoryError.of("image-build-path-invalid", where=where, path=str(path))
        if isinstance(each, bytes):
            found[str(name)] = each
        elif isinstance(each, str):
            found[str(name)] = each.encode()
        elif isinstance(each, Mapping) and isinstance(each.get("file"), str):
            found.update(_read(name, folder / each["file"], where))
        else:
            raise InventoryError.of("image-build-file-invalid", where=where, path=str(path), value=f"{each!r:.200}")
    if sum(map(len, found.values())) > CONTEXT_LIMIT:
        raise InventoryError.of("image-build-too-large", where=where, limit=CONTEXT_LIMIT)
    return dict(sorted(found.items()))


def _read(name: PurePosixPath, path: Path, where: str) -> dict[str, bytes]:
    """A file, or all files of a folder that its `.dockerignore` does not exclude."""
    try:
        if not path.is_dir():
            return {str(name): path.read_bytes()}
        found = {str(name / each): (path / each).read_bytes() for each in _paths(path)}
    except OSError as error:
        raise InventoryError.of(
            "image-build-file-unreadable", where=where, path=str(path), text=error.strerror or str(error)
        ) from None
    found.pop("Dockerfile", None)
    return found


def _paths(folder: Path) -> Iterator[str]:
    """The files of a folder, links left out, in order; relative to it."""
    ignore = folder / IGNORE_FILE
    if ignore.is_file():
        from docker.utils.build import exclude_paths  # takes longer to load than a whole plan

        lines = (line.strip() for line in ignore.read_text(encoding="utf-8").splitlines())
        found = exclude_paths(str(folder), [line for line in lines if line and not line.startswith("#")])
    else:
        found = {each.relative_to(folder).as_posix() for each in folder.rglob("*")}
    for each in sorted(found):
        if (folder / each).is_file() and not (folder / each).is_symlink():
            yield each
