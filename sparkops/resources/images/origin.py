"""Where an image comes from: a registry, a build on the node, or an archive. Each says what identifies its content.

`Image` chooses one of them and asks it; nothing else tells the three apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkops.core.digests import sha256
from sparkops.core.kind_messages import ImageAct
from sparkops.core.states import Observed
from sparkops.core.wording import Message
from sparkops.resources.images.archive import Archive, read_archive
from sparkops.resources.images.reference import Reference

if TYPE_CHECKING:
    from sparkops.resources.images.registry import Login

    Logins = Callable[[str], Login | None]
    """The credentials for the registry of a repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledImage:
    """From a registry. `digest` is of the index, `manifest` of the platform's own manifest, where they are declared."""

    reference: Reference
    digest: str | None
    manifest: str | None
    platform: str | None

    build: str = ""
    """The hash of a build's inputs; none here."""
    bases: tuple[Reference, ...] = ()
    """The images that a build starts from; none here."""
    like: None = None
    """What an archive is compared by; none here."""

    @property
    def repositories(self) -> tuple[str, ...]:
        """The repositories that credentials may be needed for; declared ones are for the first."""
        return (self.reference.repository,)

    @property
    def transfer_key(self) -> str:
        """What two nodes must have in common to pass it on; "" where it is pinned, as a loaded image has no digest."""
        return "" if self.digest or self.manifest else f"{self.reference.name} {self.platform or ''}"

    def desired(self) -> dict[str, object]:
        """The keys of the state that say it is this content."""
        wanted = {"digest": self.digest, "manifest": self.manifest}
        return {key: value for key, value in wanted.items() if value}

    def arguments(self, logins: Logins) -> ImageAct:
        """What the worker's act needs."""
        login = logins(self.reference.repository)
        return {
            "how": "pull",
            "attach": self.digest or self.platform or "",
            "auth": login.as_json() if login else None,
        }

    def sources(self) -> Mapping[str, str]:
        """Files of this machine that it is made from, each with a digest."""
        return {}

    def notices(self, found: Observed) -> tuple[Message, ...]:
        """What can't be compared."""
        if self.manifest and isinstance(found, Mapping) and found.get("manifest") is None:
            name = self.reference.name
            return (Message.of("image-manifest-unreported", name=name),)
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedImage:
    """From the file `path`, made by `docker save`; it is identified by its ordered layers and configuration."""

    path: Path
    where: str

    repositories: tuple[str, ...] = ()
    transfer_key: str = ""
    build: str = ""
    bases: tuple[Reference, ...] = ()
    digest: str | None = None

    @property
    def archive(self) -> Archive:
        """Its table of contents. Raises InventoryError where it is no archive of one image."""
        return read_archive(self.path, self.where)

    @property
    def like(self) -> tuple[list[str], Mapping[str, object]]:
        return list(self.archive.layers), self.archive.config

    def desired(self) -> dict[str, object]:
        return {"archive": "declared"}

    def arguments(self, logins: Logins) -> ImageAct:
        return {"how": "load", "size": self.archive.size}

    def sources(self) -> Mapping[str, str]:
        archive = self.archive
        text = json.dumps([archive.layers, archive.config], sort_keys=True, default=str)
        return {f"archive {self.path}": sha256(text.encode())}

    def notices(self, found: Observed) -> tuple[Message, ...]:
        return ()
