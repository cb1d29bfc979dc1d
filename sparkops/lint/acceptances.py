"""Rules about the entries of an inventory's `accept`. It must not know a service's line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from sparkops.inventory.faults import suggest
from sparkops.inventory.inventory import Accept, Inventory
from sparkops.lint.case import Found
from sparkops.lint.rules import rules

NEAR = 0.8
"""How alike (difflib's ratio) an unknown id must be to a rule's to count as that one misspelt."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An entry of `accept` on a day."""

    entry: Accept
    inventory: Inventory
    today: date


def acceptance_idle(given: Acceptance) -> Iterable[Found]:
    """Entries that are over, or name no rule or no service.

    What a plan finds on nodes has ids of its own, mostly with a dot, which cannot be known offline.
    """
    entry, services = given.entry, given.inventory.services
    name, at, service = entry.id.partition("@")
    if entry.expired(given.today):
        yield Found(f"the acceptance of {entry.id} ran out on {entry.until}")
    elif at and name in rules() and service not in services:
        yield Found(f"{entry.id} names no service of this inventory; {suggest(service, services)}")
    elif name not in rules() and (near := difflib.get_close_matches(name, rules(), 1, NEAR)):
        yield Found(f"nothing is called {name}; did you mean {near[0]}?")
