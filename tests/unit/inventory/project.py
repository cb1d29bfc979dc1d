"""A project folder for tests: an inventory, and stubs of the built-in roles beside it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from sparkops.core.errors import InventoryError
from sparkops.inventory.declarations import BUILT_IN
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import Extra, load

VARIABLES = {
    "driver": "accept: {type: array, items: {type: string}, default: ['580.*']}, pin: {type: string, secret: true}",
    "fabric": "address: {type: string}, mtu: {type: integer, default: 9000}",
    "image": "reference: {type: string}",
    "checkpoint": "repository: {type: string}",
    "service": (
        "port: {type: integer, minimum: 1, description: the port of the API}, serve: {type: object},"
        " environment: {type: object, additionalProperties: {type: [string, number], secret: true}}"
    ),
}


class Project:
    """Writes files and loads the inventory; the names of faults are checked as text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, scope in BUILT_IN.items():
            self.role(
                name,
                f"""
                summary: stub of {name}
                scope: {scope}
                variables: {{type: object, properties: {{{VARIABLES.get(name, "")}}}}}
                resources: []
                """,
            )

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip("\n"))
        return file

    def role(self, name: str, text: str) -> Path:
        return self.write(f"roles/{name}/role.yml", text)

    def load(self, text: str, *, extra: Extra = ()) -> Inventory:
        return load(self.write("inventory.yml", text), extra=extra)

    def faults(self, text: str, *, extra: Extra = ()) -> str:
        """The message of an inventory that is wrong, without the folder's name."""
        with pytest.raises(InventoryError) as caught:
            self.load(text, extra=extra)
        return str(caught.value).replace(f"{self.folder}/", "")
