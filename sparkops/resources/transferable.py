"""What one node of a run can pass on to another: content whose identity is known before it is there.

The kinds say what the content is and who is proven to have it; `reconcile/transfers` says who gets it from whom, and
`upstream` opens the way. It must not know what a relay speaks.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sparkops.core.plan import Step
from sparkops.core.states import Observed
from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session
    from sparkops.resources.transfer_source import Upstream


@dataclass(frozen=True, kw_only=True)
class Passed(Resource):
    """A kind of such content. Its worker's module has the calls `relay`, `reach` and `running`.

    spread: whether it may come from another node of the run that has it or gets it too, and be passed on to others.
    """

    lacked: ClassVar[frozenset[str]]
    """The keys whose change tells of content which is not there."""
    alternative: ClassVar[str] = "it is fetched from outside"
    """What happens where no other node passes it on, for people."""

    streamed: ClassVar[bool] = True
    """Whether parts of it can be passed on to another node before it is all there."""

    spread: bool = True
    upstream: Upstream | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def passable(self) -> str:
        """A word for the content, equal on all nodes that are to have the same; "" where it can't be passed on."""
        raise NotImplementedError

    @property
    def passing(self) -> Mapping[str, Any]:
        """What this node's relay needs to know of what it passes on."""
        raise NotImplementedError

    def proven(self, found: Mapping[str, Any]) -> bool:
        """Whether a node in this state has it all; asked for what has no step that lacks it."""
        return True

    def lacks(self, step: Step | None) -> bool:
        """Whether this step brings content that is not there."""
        return (
            step is not None and step.after is not None and (step.before is None or bool(self.lacked & {*step.changes}))
        )

    def behind(self, upstream: Upstream) -> Passed:
        """This one, come from another node."""
        found = copy.copy(self)
        object.__setattr__(found, "upstream", upstream)
        return found

    @property
    def ahead(self) -> str:
        """The id of the resource that it comes from, whose step has to have begun; or be done, unless `streamed`."""
        return self.upstream.source.id if self.upstream is not None else ""

    def received(self, act: Mapping[str, Any], peer: Mapping[str, Any] | None) -> dict[str, Any]:
        """The worker's `act` for what comes from `peer`; None where a job that gets it runs already and is followed."""
        return {**act, "peer": peer} if peer is not None else {**act, "attached": True}

    def receive(self, upstream: Upstream, session: Session, step: Step) -> Generator[Mapping[str, Any], None, Observed]:
        """Converge with what comes from the node before it. A job that gets it already is followed."""
        order = self.order(session, step)
        peer = None
        if not session.call(
            f"{self.kind}.running", {"ask": order["ask"], "act": self.received(order["act"], None)}, timeout=60
        ):
            peer = yield from upstream.opened(session, self)
        act = self.received(order["act"], peer)
        return self.converged_to((yield from session.stream("converge", {**order, "act": act})))
