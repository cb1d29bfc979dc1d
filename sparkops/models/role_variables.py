"""What the variables of built-in roles mean beyond their schema: faults in them, and which of them a lock pins.

The inventory hands in merged variables by role and knows none of these names itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparkops.models import build_steps

Spaces = Mapping[str, Mapping[str, Any]]
"""Merged variables of a service on a node, by role."""


def faults(
    role: str, variables: Mapping[str, Any]
) -> Iterator[tuple[tuple[str | int, ...], str, Mapping[str, object]]]:
    """What a schema cannot express: the path of the key in the variables, the error's id and arguments."""
    if role == "checkpoint" and isinstance(variables.get("steps"), list):
        for fault in build_steps.faults(variables["steps"]):
            yield ("steps", fault.index, fault.name), fault.id, fault.args


def pinned(spaces: Spaces, images: Mapping[str, str], checkpoints: Mapping[str, str]) -> Spaces:
    """The variables with locked digests (by image as declared) and commits (by `checkpoint_key`).

    What the inventory pins itself stays.
    """
    found = dict(spaces)
    image, checkpoint = spaces.get("image", {}), spaces.get("checkpoint", {})
    if image.get("pull") in images and not any(image.get(key) for key in ("digest", "archive")):
        found["image"] = {**image, "digest": images[image["pull"]]}
    key = checkpoint_key(checkpoint)
    if key in checkpoints and not checkpoint.get("commit"):
        found["checkpoint"] = {**checkpoint, "commit": checkpoints[key]}
    if checkpoints and checkpoint.get("steps"):
        keys = {each: _donor_key(checkpoint, each) for each in build_steps.donors(checkpoint["steps"])}
        commits = {
            (each.repository, each.revision): checkpoints[key] for each, key in keys.items() if key in checkpoints
        }
        found["checkpoint"] = {**found["checkpoint"], "steps": build_steps.pinned(checkpoint["steps"], commits)}
    return found


def checkpoint_key(checkpoint: Mapping[str, Any]) -> str:
    """ORG/NAME@REVISION, after the hub's address where one is declared."""
    hub = f"{checkpoint['endpoint'].rstrip('/')}/" if checkpoint.get("endpoint") else ""
    return f"{hub}{checkpoint.get('repository')}@{checkpoint.get('revision')}"


def _donor_key(checkpoint: Mapping[str, object], donor: build_steps.Donor) -> str:
    """The key of a build's donor: as that of a checkpoint, at the same hub."""
    return checkpoint_key(
        {"repository": donor.repository, "revision": donor.revision, "endpoint": checkpoint.get("endpoint")}
    )
