"""The node half of `drain`: the wait until an engine works on no request."""

from typing import Any

from sparkops.worker.calls import Call
from sparkops.worker.system import serving


def observe(ask: dict[str, Any]) -> dict[str, object]:
    """Nothing: requests come and go."""
    return {}


def converge(
    call: Call,
    ask: dict[str, Any],
    found: dict[str, object] | None,
    want: dict[str, object] | None,
    act: dict[str, Any],
) -> None:
    """Wait; what is open at the end is told by a notice. Raises Refused where the run is stopped meanwhile."""
    serving.drain(call, ask, act["seconds"])
