"""`--replace`: which declared things are to be made anew though they may be as declared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sparkops.core.errors import InventoryError
from sparkops.inventory.faults import suggest
from sparkops.resources.resource import Resource


def replaced(resources: Sequence[Resource], words: Iterable[str]) -> frozenset[str]:
    """The ids that these words name: an id, or one without its ` @NODE`, which then means every node.

    Raises InventoryError for a word that names nothing, and for what can't be done again.
    """
    found: set[str] = set()
    for word in words:
        named = [each for each in resources if word in (each.id, f"{each.kind} {each.name}")]
        if not named:
            known = {each.id for each in resources if each.replaceable}
            raise InventoryError.of("replace-not-found", word=word, suggestion=suggest(word, known))
        stuck = [each.id for each in named if not each.replaceable]
        if stuck:
            raise InventoryError.of("replace-not-possible", where=named[0].where, stuck=stuck[0])
        found |= {each.id for each in named}
    return frozenset(found)
