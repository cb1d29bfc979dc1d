"""Digests of everything on this machine that a plan is made from, so that a saved one can tell what has changed.

Secrets are not among them: nothing computed from a secret is kept anywhere. It must not know nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparkops.core import data
from sparkops.core.digests import sha256
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.lockfile import lock_path
from sparkops.inventory.recipes import recipe_files
from sparkops.resources.resource import Resource


def inputs(
    inventory: Inventory, resources: Iterable[Resource], extra: Sequence[tuple[str, str]] = ()
) -> dict[str, str]:
    """A digest by name: the inventory, `-e`, each role and recipe in use, templates, knowledge, and local archives.

    The values of `-e` are hashed together with the inventory, so that no short one stands there alone.
    """
    text = inventory.path.read_bytes()
    found = {"inventory": sha256(text)}
    if extra:
        found["-e"] = sha256(text + json.dumps([list(pair) for pair in extra]).encode())
    used = {role for node in inventory.nodes.values() for role in node.roles}
    used |= {role for each in inventory.services.values() for roles in each.roles.values() for role in roles}
    for name, role in inventory.roles.items():
        if name in used and role.folder is not None:
            found[f"role {name}"] = _tree([role.folder])
    recipes = recipe_files(inventory.folder)
    for service in inventory.services.values():
        if service.recipe is not None:
            found[f"recipe {service.recipe.name}"] = sha256(recipes[service.recipe.name].read_bytes())
    if inventory.lock.on_disk:
        found["lock"] = sha256(lock_path(inventory.path).read_bytes())
    found["templates"] = _tree(data.folders("templates", inventory.folder))
    found["knowledge"] = _tree([data.bundled("knowledge")])
    for resource in resources:
        found.update(resource.sources())
    return found


def _tree(folders: Iterable[Path]) -> str:
    """One digest of all files below these folders by their paths; what editors leave (`.x.swp`, `x~`) is none."""
    parts = []
    for number, folder in enumerate(folders):
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder)
            if file.is_file() and not file.name.endswith("~") and not any(part.startswith(".") for part in name.parts):
                parts.append([number, name.as_posix(), sha256(file.read_bytes())])
    return sha256(json.dumps(parts).encode())
