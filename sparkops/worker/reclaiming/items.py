"""An item that can be given back, and what a kind looks at to find its own."""

from dataclasses import dataclass
from typing import TypedDict

from sparkops.core.messages import Reason, reason
from sparkops.worker.record.claim_records import Record
from sparkops.worker.record.uses import Uses

DECLARED = reason("gc-declared")
GONE = reason("gc-claim-only")


class Item(TypedDict):
    """`bytes` become free with it; `kept` is why it stays, None for what can go.

    `kind` and `name` are for people; `by` is the kind whose `reclaim` removes it, `claims` those whose claim goes with
    it. `unknown`: it is kept since it is not known who uses it.
    """

    kind: str
    name: str
    bytes: int
    kept: Reason | None
    unknown: bool
    note: Reason | None
    by: str
    claims: list[str]


@dataclass(frozen=True)
class Look:
    """One look at a node: who uses what, this cluster's claims by key, and what the inventory needs (`Resource.uses`).

    With `foreign` what sparkops did not bring is listed too.
    """

    state_dir: str
    found: Uses
    mine: Record
    declared: dict[str, list[str]]
    foreign: bool = False

    def needs(self, what: str) -> list[str]:
        """What the inventory needs of `folders`, `images` or whatever else a kind names in `uses`."""
        return self.declared.get(what, [])


def item(
    kind: str,
    name: str,
    size: int,
    kept: Reason | None,
    *,
    by: str,
    note: Reason | None = None,
    claims: list[str] | None = None,
    unknown: bool = False,
) -> Item:
    """The item with what is left out filled in."""
    about: Item = {
        "kind": kind,
        "name": name,
        "bytes": size,
        "kept": kept,
        "unknown": unknown,
        "note": note,
        "by": by,
        "claims": claims or [],
    }
    return about
