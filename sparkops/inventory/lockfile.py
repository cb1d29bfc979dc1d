"""The lock file beside an inventory: what tags and branches stood for when they were asked; plain values.

It pins the merged variables, so that plan, apply, drift, render and lint see the same. It must not know how upstream
is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparkops.core import atomic
from sparkops.inventory.document import read
from sparkops.inventory.faults import Faults
from sparkops.inventory.validate import validate
from sparkops.models import role_variables

HEAD = "# What moves upstream, pinned by `sparkops lock`. Keep it with the inventory.\n"


def _map(pattern: str, description: str) -> dict[str, object]:
    values = {"type": "string", "pattern": pattern}
    return {"type": ["object", "null"], "additionalProperties": values, "description": description}


SCHEMA: Mapping[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version"],
    "properties": {
        "version": {"const": 1},
        "images": _map("^sha256:[0-9a-f]{64}$", "image as declared → digest of its index"),
        "checkpoints": _map("^[0-9a-f]{40}$", "ORG/NAME@REVISION → commit"),
    },
}


@dataclass(frozen=True, slots=True)
class Lock:
    """Digests of images by their declared name, commits of checkpoints by ORG/NAME@REVISION."""

    images: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    on_disk: bool = False
    """Whether it was read from its file, or goes there."""

    def pinned(self, spaces: Mapping[str, Mapping[str, object]]) -> Mapping[str, Mapping[str, object]]:
        """A service's merged variables with what is locked; what the inventory pins itself stays."""
        return role_variables.pinned(spaces, self.images, self.checkpoints)


def lock_path(inventory: Path) -> Path:
    """`inventory.lock.yml` beside `inventory.yml`."""
    return inventory.with_name(f"{inventory.stem}.lock.yml")


def read_lock(inventory: Path) -> Lock:
    """The lock of an inventory; an empty one where it has none. Raises InventoryError."""
    path = lock_path(inventory)
    if not path.exists():
        return Lock()
    document = read(path)
    faults = Faults()
    validate(document, (), SCHEMA, faults, label="the lock file")
    faults.raise_any()
    content = document.data
    return Lock(content.get("images") or {}, content.get("checkpoints") or {}, on_disk=True)


def write_lock(inventory: Path, lock: Lock) -> Path:
    """Replace the lock file as a whole."""
    import yaml

    path = lock_path(inventory)
    content = {"version": 1, "images": dict(lock.images), "checkpoints": dict(lock.checkpoints)}
    text = HEAD + yaml.safe_dump({key: each for key, each in content.items() if each}, sort_keys=False, width=200)
    atomic.write(path, text.encode(), 0o644)
    return path
