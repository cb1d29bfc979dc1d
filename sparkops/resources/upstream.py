"""The node that a checkpoint comes from when it does not come from outside, and how the way to it is opened.

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
    from sparkops.resources.checkpoint import Checkpoint

MANNER = {"connections": 3, "segment": 32 << 20}
"""How a receiver fetches: a few streams side by side in one file, so that files are proven, and passed on, in turn."""
IDLE = 600.0
"""Seconds after which a relay that nobody asks ends: longer than a receiver hashes what it has."""
QUIET = 30.0
"""Seconds after which a source on which nothing is brought any more is told to have ended."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Who passes it on: the resource `source` on its node, reached at the first of `addresses` that works.

    `fabric` says whether the first is the declared address on the fabric. `receivers` are all nodes that get it there.
    """

    source: Checkpoint
    addresses: tuple[str, ...]
    fabric: bool
    receivers: tuple[str, ...]
    authority: Authority = field(repr=False, compare=False)

    @property
    def manner(self) -> Mapping[str, Any]:
        """How the receiver fetches."""
        return MANNER

    @property
    def way(self) -> str:
        """For people: `spark-01 over 192.168.100.1`."""
        return f"{self.source.node} over {self.addresses[0]}"

    def opened(self, session: Session, resource: Checkpoint) -> Generator[Mapping[str, Any], None, dict[str, Any]]:
        """The worker's `peer`: the relay runs and `session`, the receiver's, reaches it. Yields notices.

        Raises ConvergeFailed where the source does not answer, or none of its addresses can be used.
        """
        node, why = self.source.node, ""
        try:
            source = session.peer(node)
            for number, address in enumerate(self.addresses):
                if number:
                    yield {"notice": f"{resource.id}: {why}; it comes over {address} instead, which may be slower"}
                try:
                    port = source.call("checkpoint.relay", self._relay(address), timeout=60)["port"]
                    place = {"node": node, "address": address, "port": int(port)}
                    session.call("checkpoint.reach", place, timeout=60)
                except CallFailed as error:
                    if error.type != "address":
                        raise
                    why = error.what
                    continue
                return {**place, "credentials": self.authority.receiver(resource.node)}
        except NodeError as error:
            if error.where == resource.node:
                raise
            why = error.what
        raise ConvergeFailed(
            f"{node}, which it is to come from, can't pass it on: {why or 'it has no address'}",
            where=resource.node,
            hint=f"see to {node}, or declare `checkpoint: {{spread: false}}` to fetch it from outside; run apply again",
        )

    def _relay(self, address: str) -> dict[str, Any]:
        source = self.source
        assert source.manifest is not None
        return {
            "folder": source.name,
            "state_dir": source.state_dir,
            "owner": source.owner,
            "files": [[file.path, file.size, file.oid] for file in source.manifest.files],
            "address": address,
            "credentials": self.authority.source(source.node, address),
            "fingerprint": self.authority.fingerprint,
            "receivers": list(self.receivers),
            "seconds": LIFETIME,
            "idle": IDLE,
            "quiet": QUIET,
        }
