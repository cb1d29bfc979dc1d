"""What a service's own engine counts, and whether it answers: one or two readings of its /metrics, then a completion.

The readings come first, so that the completion that is asked for here is none of what they count.
"""

import http.client
import time
from collections.abc import Callable

from sparkops.core.kind_messages import ProbeAsk
from sparkops.core.messages import UNKNOWN, reason_of
from sparkops.programs.launch.api import BUSY, Api, Question
from sparkops.worker.calls import Unknown
from sparkops.worker.kinds import probe
from sparkops.worker.system import serving

BETWEEN = 1.0
"""Seconds between the two readings."""
LIMIT = 3.0
"""Seconds for one reading: with the completion's own limit all stays within one look's."""


def observe(ask: ProbeAsk) -> dict[str, object]:
    """`counted`: two readings, see `counted`; `health`: what the kind `probe` observes. Each or why it is unknown."""
    return {"counted": _answer(lambda: counted(ask)), "health": _answer(lambda: probe.observe(ask))}


def _answer(look: Callable[[], object]) -> dict[str, object]:
    try:
        return {"found": look()}
    except (Unknown, OSError) as error:
        return {UNKNOWN: reason_of(error)}


def counted(ask: ProbeAsk) -> dict[str, object] | None:
    """`first` and `second`, the engine's samples, and the `seconds` between them; None where no request is open or
    waits: then nothing moves, and no second reading is waited for. Raises Unknown."""
    api = serving.api(ask, Question("", ""))
    first, began = reading(api), time.monotonic()
    if all(first.get(each) == 0 for each in BUSY):
        return {"first": first, "second": first, "seconds": None}
    time.sleep(BETWEEN)
    second, ended = reading(api), time.monotonic()
    return {"first": first, "second": second, "seconds": ended - began}


def reading(api: Api) -> dict[str, float]:
    """The samples of the service's own engine, of nobody else's. Raises Unknown."""
    if foreign := api.foreign():
        raise Unknown.of("metrics-not-own", text=foreign)
    try:
        found = api.metrics(LIMIT)
    except (OSError, http.client.HTTPException) as error:
        raise Unknown.of("metrics-unreadable", text=str(error) or type(error).__name__) from None
    if foreign := api.foreign():
        raise Unknown.of("metrics-not-own", text=foreign)
    if found is None:
        raise Unknown.of("metrics-refused")
    return found
