"""An item that can be given back, and what a kind looks at to find its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkops.core.messages import Reason, reason
from sparkops.core.request_messages import ItemTold
from sparkops.worker.record.claim_records import Record
from sparkops.worker.record.uses import Uses

DECLARED = reason("gc-declared")
GONE = reason("gc-claim-only")


@dataclass(frozen=True)
class Look:
    """One look at a node: who uses what, this cluster's claims by key, and what the inventory needs (`Resource.uses`).

    With `foreign` what sparkops did not bring is listed too.
    """

    state_dir: str
    found: Uses
    mine: Record
    declared: Mapping[str, Sequence[str]]
    foreign: bool = False

    def needs(self, what: str) -> Sequence[str]:
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
) -> ItemTold:
    """The item with what is left out filled in."""
    about: ItemTold = {
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
