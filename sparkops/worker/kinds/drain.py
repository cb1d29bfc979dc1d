"""The node half of `drain`: the wait until an engine works on no request."""

from sparkops.core.kind_messages import DrainAct, EnginePlace
from sparkops.core.messages import State
from sparkops.worker.calls import Call
from sparkops.worker.system import serving


def observe(ask: EnginePlace) -> dict[str, object]:
    """Nothing: requests come and go."""
    return {}


def converge(call: Call, ask: EnginePlace, found: State, want: State, act: DrainAct) -> None:
    """Wait; what is open at the end is told by a notice. Raises Refused where the run is stopped meanwhile."""
    serving.drain(call, ask, act["seconds"])
