"""What would stand on a node, as text and offline: files, units, and the argument list of each service.

Secrets show as `***`; nothing is asked of a node, a hub or a registry.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sparkops.compile.compiler import compile_inventory, spec_of
from sparkops.core import fact_text
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Content, Secret
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory
from sparkops.resources.resource import Resource


@dataclass(frozen=True, slots=True)
class Rendered:
    """One text of a node: its title (`file /etc/x`), the place of its declaration, the text."""

    title: str
    where: str
    text: str


def render(inventory: Inventory, node: str, service: str | None = None) -> Iterator[Rendered]:
    """Every text that is declared for a node, or for one service on it; a service's argument list follows its spec."""
    if node not in inventory.nodes:
        raise InventoryError.of("node-not-found", node=node, suggestion=suggest(node, inventory.nodes))
    if service is not None and service not in {each.name for each in inventory.services_on(node)}:
        there = [each.name for each in inventory.services_on(node)]
        raise InventoryError.of("service-not-there", service=service, node=node, suggestion=suggest(service, there))
    for resource in compile_inventory(inventory).of(node, service):
        text = _text(resource)
        if text is None or resource.name.endswith(".py"):
            continue
        yield Rendered(f"{resource.kind} {resource.name}", resource.where, text)
        if (spec := spec_of(resource)) is not None:
            yield Rendered(f"arguments of {resource.service}", resource.where, _arguments(spec["argv"]))


def _text(resource: Resource) -> str | None:
    content = getattr(resource, "content", None)
    if isinstance(content, Content):
        content = content.text
    return fact_text.shown(str(content)) if isinstance(content, (str, Secret)) else None


def _arguments(argv: Iterable[str]) -> str:
    """The argument list inside the container, an option a line, quoted for a shell."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("--") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n  ".join(lines) + "\n"
