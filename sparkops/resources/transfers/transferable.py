"""What one node of a run can get from another: content whose identity is known before it is there.

The kinds say what the content is and which nodes are proven to have it; `reconcile/transfers` assigns the sources, and
`source` starts the transfer. It must not know the protocol between the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from sparkops.core.messages import Fields
from sparkops.core.plan import Step
from sparkops.core.states import Observed
from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

Opening: TypeAlias = "Callable[[Session], Generator[Fields, None, dict[str, object]]]"
"""Has the source serve to a receiver's session; returns the worker's `peer`, yields notices."""


@dataclass(frozen=True, kw_only=True)
class Transferable(Resource):
    """A kind of such content. Its worker's module has the calls `relay` and `running`.

    spread: whether it may come from another node of the run that has it or gets it too, and be served to others.
    """

    streamed: ClassVar[bool] = True
    """Whether parts of it can be served to another node before it is all there."""
    lacked: ClassVar[frozenset[str]]
    """The keys whose change means that content is missing."""

    spread: bool = True

    @property
    def transfer_key(self) -> str:
        """Equal on all nodes that are to have the same content; "" where it can't be transferred."""
        raise NotImplementedError

    @property
    def served(self) -> Mapping[str, object]:
        """What this node's server needs to know of the content."""
        raise NotImplementedError

    def proven(self, found: Mapping[str, object]) -> bool:
        """Whether a node in this state has it all; asked for what has no step that lacks it."""
        return True

    def lacks(self, step: Step | None) -> bool:
        """Whether this step brings content that is not there."""
        return (
            step is not None and step.after is not None and (step.before is None or bool(self.lacked & {*step.changes}))
        )

    def received(self, act: Mapping[str, object], peer: Mapping[str, object] | None) -> dict[str, object]:
        """The worker's `act` for what comes from `peer`; None where a job that gets it runs already and is followed."""
        return {**act, "peer": peer} if peer is not None else {**act, "attached": True}

    def receive(
        self, opening: Opening, session: Session, step: Step
    ) -> Generator[Mapping[str, object], None, Observed]:
        """Converge with what the source serves. A job that gets it already is followed."""
        order = self.order(session, step)
        peer = None
        if not session.call(
            f"{self.kind}.running", {"ask": order["ask"], "act": self.received(order["act"], None)}, timeout=60
        ):
            peer = yield from opening(session)
        act = self.received(order["act"], peer)
        return self.converged_to((yield from session.stream("converge", {**order, "act": act})))
