"""A name of an image in parts. It must not know where images come from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sparkops.core.errors import InventoryError
from sparkops.core.kind_messages import ImageAsk

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A name of an image. `repository` is as Docker shows it: without `docker.io/` and `library/`.

    Docker's SDK splits names without checking them and leaves a tag before a digest in the repository; here a wrong
    name is an error of the inventory. Loading the SDK would also take an eighth of a second of every plan.
    """

    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str, where: str = "") -> Reference:
        """`repo`, `repo:tag`, `repo@sha256:…` or `repo:tag@sha256:…`. Raises InventoryError."""
        rest, at, digest = str(text).partition("@")
        head, colon, tag = rest.rpartition(":")
        tagged = bool(colon) and "/" not in tag
        if not tagged:
            head, tag = rest, ""
        for prefix in ("docker.io/", "index.docker.io/"):
            head = head.removeprefix(prefix)
        head = head.removeprefix("library/")
        valid = _REPOSITORY.fullmatch(head) and (not tagged or _TAG.fullmatch(tag))
        if not valid or (at and not is_digest(digest)):
            raise InventoryError.of("image-name-invalid", where=where, name=str(text))
        return cls(head, tag or ("" if digest else "latest"), digest)

    @property
    def name(self) -> str:
        """The name by which an engine finds it; a digest is stronger than a tag."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    def as_json(self) -> ImageAsk:
        """As the worker's image requests have it."""
        return {
            "name": self.name,
            "repository": self.repository,
            "tag": self.tag,
            "digest": self.digest or None,
        }


def is_digest(text: str) -> bool:
    """Whether it is `sha256:` and 64 hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None
