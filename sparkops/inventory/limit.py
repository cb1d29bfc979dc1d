"""What `--limit` means: names of nodes, groups and services, globs, and exclusions with `!`.

A service is never cut in two: a selected node brings the other nodes of its services, and theirs. Of a shard only its
own nodes are selected, perhaps none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from sparkops.core.errors import InventoryError
from sparkops.core.graph import components
from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Inventory


def select(inventory: Inventory, patterns: Sequence[str] | str | None) -> tuple[str, ...]:
    """The selected nodes in the inventory's order. Raises InventoryError for a pattern that matches nothing, and for
    an exclusion that would cut a service in two."""
    words = _words([patterns] if isinstance(patterns, str) else patterns or ())
    wanted = [word for word in words if not word.startswith("!")]
    chosen = {node for word in wanted for node in _match(inventory, word)} if wanted else set(inventory.nodes)
    excluded = {node for word in words if word.startswith("!") for node in _match(inventory, word[1:])}
    selected = _closure(inventory, chosen - excluded)
    cut = [node for node in inventory.nodes if node in selected & excluded]
    if cut:
        service = next(
            each for each in inventory.services.values() if cut[0] in each.nodes and set(each.nodes) - excluded
        )
        raise InventoryError.of(
            "limit-splits-service", cut=cut[0], service=service.name, nodes=", ".join(service.nodes)
        )
    if not selected:
        raise InventoryError.of("limit-empty")
    return _within(inventory, selected)


def named(inventory: Inventory, words: Sequence[str]) -> tuple[str, ...]:
    """The nodes that these words mean, and no others: what looks or runs a program does not need a service whole.

    All nodes without a word. Raises InventoryError for a word that matches nothing, and where none is left.
    """
    each = _words(words)
    wanted = [word for word in each if not word.startswith("!")]
    chosen = {node for word in wanted for node in _match(inventory, word)} if wanted else set(inventory.nodes)
    chosen -= {node for word in each if word.startswith("!") for node in _match(inventory, word[1:])}
    if not chosen:
        raise InventoryError.of("selection-empty", words=" ".join(words))
    return _within(inventory, chosen)


def _within(inventory: Inventory, chosen: Collection[str]) -> tuple[str, ...]:
    """The chosen nodes in the inventory's order, those of its shard where it has one."""
    part = inventory.nodes if inventory.shard is None else inventory.shard.nodes
    return tuple(node for node in inventory.nodes if node in chosen and node in part)


def _words(given: Sequence[str]) -> list[str]:
    return [word.strip() for each in given for word in each.split(",") if word.strip()]


def _match(inventory: Inventory, pattern: str) -> set[str]:
    sets: dict[str, tuple[str, ...]] = {name: (name,) for name in inventory.nodes}
    sets.update(inventory.groups)
    sets.update({name: service.nodes for name, service in inventory.services.items()})
    found = {node for name, nodes in sets.items() if fnmatchcase(name, pattern) for node in nodes}
    if pattern == "all" and not found:
        return set(inventory.nodes)
    if not any(fnmatchcase(name, pattern) for name in sets):
        raise InventoryError.of("limit-pattern-unknown", pattern=pattern, suggestion=suggest(pattern, sets))
    return found


def _closure(inventory: Inventory, nodes: set[str]) -> set[str]:
    joined = components(service.nodes for service in inventory.services.values())
    return nodes.union(*(each for each in joined if each & nodes))
