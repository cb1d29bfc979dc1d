"""The node that content comes from when it does not come from outside, and how the way to it is opened.

The source runs a relay as a node job, the receiver's job fetches from it; the controller brings the two together and
hands each its certificate. Both go on when it leaves.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkops.checkpoints.authority import LIFETIME, Authority
from sparkops.core.errors import ConvergeFailed, NodeError
from sparkops.nodes.session import CallFailed

if TYPE_CHECKING:
    from sparkops.nodes.session import Session
    from sparkops.resources.transferable import Passed

IDLE = 600.0
"""Seconds after which a relay that nobody asks ends: longer than a receiver hashes what it has."""
QUIET = 30.0
"""Seconds after which a source on which nothing is brought any more is told to have ended."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Who passes it on: the resource `source` on its node, reached at the first of `addresses` that works.

    `fabric` says whether the first is the declared address on the fabric. `receivers` are all nodes that get it there.
    """

    source: Passed
    addresses: tuple[str, ...]
    fabric: bool
    receivers: tuple[str, ...]
    authority: Authority = field(repr=False, compare=False)

    @property
    def way(self) -> str:
        """For people: `spark-01 over 192.168.100.1`."""
        return f"{self.source.node} over {self.addresses[0]}"

    def opened(self, session: Session, resource: Passed) -> Generator[Mapping[str, Any], None, dict[str, Any]]:
        """The worker's `peer`: the relay runs and `session`, the receiver's, reaches it. Yields notices.

        With what the relay says of the content beside its `port`.

        Raises ConvergeFailed where the source does not answer, or none of its addresses can be used.
        """
        node, why = self.source.node, ""
        try:
            source = session.peer(node)
            for number, address in enumerate(self.addresses):
                if number:
                    yield {"notice": f"{resource.id}: {why}; it comes over {address} instead, which may be slower"}
                try:
                    said = source.call(f"{resource.kind}.relay", self._relay(address), timeout=60)
                    place = {"node": node, "address": address, "port": int(said["port"])}
                    session.call("transfer.reach", place, timeout=60)
                except CallFailed as error:
                    if error.type != "address":
                        raise
                    why = error.what
                    continue
                return {**said, **place, "credentials": self.authority.receiver(resource.node)}
        except NodeError as error:
            if error.where == resource.node:
                raise
            why = error.what
        raise ConvergeFailed(
            f"{node}, which it is to come from, can't pass it on: {why or 'it has no address'}",
            where=resource.node,
            hint=f"see to {node}, or declare `spread: false` of it to do without; run apply again",
        )

    def _relay(self, address: str) -> dict[str, Any]:
        return {
            **self.source.passing,
            "address": address,
            "credentials": self.authority.source(self.source.node, address),
            "fingerprint": self.authority.fingerprint,
            "receivers": list(self.receivers),
            "seconds": LIFETIME,
            "idle": IDLE,
            "quiet": QUIET,
        }
