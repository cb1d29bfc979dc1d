"""What goes into a built checkpoint: the files of its base and donors, and the steps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from sparkops.checkpoints.hub import Hub, HubError
from sparkops.checkpoints.manifest import Manifest, is_commit
from sparkops.models import build_steps
from sparkops.models.argv import canonical

BUILDER = 1
"""Counts up when the same steps make other bytes: what was built before is then built again."""


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """`repository` is what the record names as the base's."""

    repository: str
    base: Manifest
    donors: tuple[Manifest, ...]
    steps: tuple[Mapping[str, object], ...]

    @property
    def identity(self) -> str:
        """One word for all of it: the same bytes come out of the same identity."""
        content = {
            "builder": BUILDER,
            "base": self.base.digest,
            "donors": [donor.digest for donor in self.donors],
            "steps": build_steps.content(self.steps),
        }
        return "build:sha256:" + hashlib.sha256(canonical(content).encode()).hexdigest()

    @property
    def record(self) -> dict[str, object]:
        """What the built folder's record says beside its files."""
        built = {
            "identity": self.identity,
            "base": self.base.digest,
            "donors": [
                {"repository": each.repository, "commit": each.commit, "manifest": each.digest} for each in self.donors
            ],
            "steps": build_steps.numbered(self.steps),
            "builder": BUILDER,
        }
        return {"repository": self.repository, "commit": self.base.commit, "built": built}

    def request(
        self, access: Mapping[str, str], options: Mapping[str, object], *, again: bool = False
    ) -> dict[str, object]:
        """What `programs/build/caller.py` takes. `access` is `{endpoint, token}` of the hub."""
        return {
            "identity": self.identity,
            "base": {"manifest": self.base.digest, "files": file_list(self.base)},
            "record": self.record,
            "again": again,
            **of_donors(self.donors, self.steps, access, options),
        }


def of_donors(
    donors: tuple[Manifest, ...], steps: build_steps.Steps, access: Mapping[str, str], options: Mapping[str, object]
) -> dict[str, object]:
    """What a build needs of donors and steps."""
    return {
        "donors": [repository_spec(donor, access) for donor in donors],
        "steps": build_steps.numbered(steps),
        "manner": dict(options),
    }


def resolve_donors(steps: build_steps.Steps, hub: Hub) -> tuple[Manifest, ...]:
    """What the donors hold, in the order of `build_steps.donors`. Raises HubError, which names the steps."""
    return tuple(_donor(steps, donor, hub) for donor in build_steps.donors(steps))


def _donor(steps: build_steps.Steps, donor: build_steps.Donor, hub: Hub) -> Manifest:
    commit = donor.commit or (donor.revision if is_commit(donor.revision) else "")
    try:
        commit = commit or hub.resolve(donor.repository, donor.revision).commit
        return hub.manifest(donor.repository, commit)
    except HubError as error:
        names = " and ".join(build_steps.takers(steps, donor))
        raise type(error).of(
            "build-donor-unavailable",
            where=error.where,
            steps=names,
            donor=f"{donor.repository}@{donor.revision}",
            reason=error.message.as_json(),
        ) from None


def repository_spec(manifest: Manifest, access: Mapping[str, str]) -> dict[str, object]:
    """A repository as a program reads parts of it."""
    about = {"repository": manifest.repository, "commit": manifest.commit, "manifest": manifest.digest}
    return {**about, "files": file_list(manifest), "hub": dict(access)}


def file_list(manifest: Manifest) -> list[list[object]]:
    """[path, bytes, oid] of each file."""
    return [[file.path, file.size, file.oid] for file in manifest.files]
