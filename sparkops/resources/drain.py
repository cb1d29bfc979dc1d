"""The kind `drain`: before its engine is interrupted it is waited, for a limited time, until that works on no request.

No role declares it: the rollout (`reconcile/rollout_order.py`) puts one before what interrupts an engine first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparkops.core.kind_messages import DrainAct, EnginePlace
from sparkops.core.plan import Step
from sparkops.core.states import State
from sparkops.resources.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Drain(Resource):
    """The wait for an engine's requests, on its head. `name` is the service's, with the turn where that is another's.

    turn_nodes: the nodes of the engine in whose turn it is waited.
    seconds: for how long; what is open then is told by a notice.
    port, host, unit, container: where the engine answers, as of the kind `unit`.
    """

    kind: ClassVar[str] = "drain"
    claimed: ClassVar[bool] = False
    leavable: ClassVar[bool] = True

    turn_nodes: Sequence[str]
    seconds: float
    port: int
    host: str = "127.0.0.1"
    unit: str
    container: str | None = None

    def ask(self) -> EnginePlace:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return {
            "host": host,
            "port": self.port,
            "service": self.service,
            "unit": self.unit,
            "container": self.container,
            "spec": self.container,
        }

    def desired(self) -> State:
        """Nothing that could differ: whether it has to be waited is known from the other steps."""
        return {}

    def act(self, step: Step) -> DrainAct:
        return {"seconds": float(self.seconds)}
