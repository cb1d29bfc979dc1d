"""The node that content comes from when it does not come from outside, and how the transfer is started.

The source runs a server as a node job, the receiver's job fetches from it; the controller starts the one, tells the
other, and hands each its certificate. Both go on when it leaves.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparkops.checkpoints.authority import LIFETIME, Authority
from sparkops.core.errors import ConvergeFailed, NodeError
from sparkops.core.kind_messages import Place, ServeOrder
from sparkops.core.wording import Message
from sparkops.nodes.session import CallFailed
from sparkops.resources.transfers.transferable import Transferable

if TYPE_CHECKING:
    from sparkops.core.plan import Step
    from sparkops.core.states import Observed
    from sparkops.nodes.session import Session

IDLE = 600.0
"""Seconds without a request after which a server ends: longer than a receiver hashes what it has."""
QUIET = 30.0
"""Seconds without a job or a push after which a source answers that the content is not coming."""


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """Where `receiver` gets its content: the resource `source` on its node, at the first of `addresses` that works.

    `fabric` says whether the first is the declared address on the fabric. `receivers` are all nodes that get it there.
    """

    source: Transferable
    receiver: Transferable
    addresses: tuple[str, ...]
    fabric: bool
    receivers: tuple[str, ...]
    authority: Authority = field(repr=False, compare=False)

    @property
    def way(self) -> str:
        """For people: `spark-01 over 192.168.100.1`."""
        return f"{self.source.node} over {self.addresses[0]}"

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        """Bring the receiver's content from the source; as `Resource.converge`."""
        return (yield from self.receiver.receive(self.opened, session, step))

    def opened(self, session: Session) -> Generator[Mapping[str, object], None, dict[str, object]]:
        """The worker's `peer`: the server runs and `session`, the receiver's, reaches it. Yields notices.

        With what the source says of the content beside its `port`. Raises ConvergeFailed where the source does not
        answer, or none of its addresses can be used.
        """
        node, why = self.source.node, Message.of("transfer-source-no-address", source=self.source.node)
        try:
            source = session.peer(node)
            for number, address in enumerate(self.addresses):
                if number:
                    args = {"resource": self.receiver.id, "reason": why, "address": address}
                    yield {"notice": Message.of("transfer-address-replaced", **args).as_json()}
                try:
                    answer = source.call(f"{self.source.kind}.relay", self._order(address), timeout=60)
                    place: Place = {"node": node, "address": address, "port": int(answer["port"])}
                    session.call("transfer.reach", place, timeout=60)
                except CallFailed as error:
                    if error.type != "address":
                        raise
                    why = error.message
                    continue
                return {**answer, **place, "credentials": self.authority.receiver(self.receiver.node)}
        except NodeError as error:
            if error.where == self.receiver.node:
                raise
            why = error.message
        raise ConvergeFailed.of("transfer-source-unusable", where=self.receiver.node, source=node, reason=why)

    def _order(self, address: str) -> dict[str, object]:
        serve: ServeOrder = {
            "address": address,
            "credentials": self.authority.source(self.source.node, address),
            "fingerprint": self.authority.fingerprint,
            "receivers": list(self.receivers),
            "seconds": LIFETIME,
            "idle": IDLE,
            "quiet": QUIET,
        }
        return {**self.source.served, "serve": serve}
