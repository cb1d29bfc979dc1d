"""What happens during a run, one frozen class per sort; progress display, log and reports listen to one stream.

`time` is seconds since the epoch (UTC). Events carry no content and no secrets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from sparkops.core.messages import Fields
from sparkops.core.wording import Message, encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events."""

    time: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, object]:
        """A line of the event log: the fields, and `event` = the class's name."""
        return {"event": type(self).__name__, **encoded(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConnecting(Event):
    node: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeObserved(Event):
    """One node answered its one question; `seconds` from the start of connecting."""

    node: str
    seconds: float
    resources: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFailed(Event):
    node: str
    reason: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    node: str
    id: str
    action: str


_NUMBER = (int, float)
_PROGRESS: Fields = {"text": str, "unit": str, "done": _NUMBER, "total": _NUMBER, "rate": _NUMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress(Event):
    """`done` and `total` in `unit` (bytes unless said otherwise); either may be None; `text` is a short line.

    `rate` is how many of them came in each of the last seconds, where who does the work tells it.
    """

    node: str
    id: str
    text: str = ""
    done: float | None = None
    total: float | None = None
    unit: str = "bytes"
    rate: float | None = None

    @classmethod
    def from_mapping(cls, node: str, id: str, progress: Fields) -> StepProgress:
        """From a worker's mapping, which may lack or add keys; what is of another type counts as lacking."""
        told = {key: progress.get(key) for key in _PROGRESS}
        known: Fields = {key: each for key, each in told.items() if each != "" and isinstance(each, _PROGRESS[key])}
        return cls(node=node, id=id, **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """`outcome` is one of done, failed, not-attempted, unknown, interrupted."""

    node: str
    id: str
    outcome: str
    seconds: float
    reason: Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something that sparkops won't touch or can't know, and says."""

    message: Message
    node: str = ""


Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """A listener for those who don't listen."""
