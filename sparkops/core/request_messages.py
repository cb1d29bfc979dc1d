"""What the calls of the worker that belong to no kind are asked and answer (`worker/requests`).

Both halves read these types, so that mypy checks what crosses between them. Standard library only: nodes run it.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from sparkops.core.kind_messages import ProbeAsk, StateAsk
from sparkops.core.messages import Fields, Reason


class LockRequest(StateAsk):
    """The holder is told to others: who, from, command."""

    holder: Mapping[str, object]


class HistoryRequest(StateAsk, total=False):
    """An `entry` to add, or how many of the `last` to read."""

    entry: Mapping[str, object]
    last: int


class ProgramRequest(TypedDict):
    """A program by its argument list, for at most `timeout` seconds."""

    argv: list[str]
    timeout: float | None


class JournalRequest(TypedDict, total=False):
    """The last `lines` entries of a unit, or all those `after` a cursor, and with `follow` what comes."""

    unit: str
    lines: int
    after: str
    follow: bool


class FactsRequest(TypedDict, total=False):
    """Groups of facts, all without; `args` are those of a group. `root` is other than `/` in tests only."""

    groups: list[str]
    args: Mapping[str, Mapping[str, object]]
    root: str


class PathRequest(TypedDict):
    """Packets of `mtu` bytes between two addresses."""

    address: str
    peer: str
    mtu: int


class LinksTold(TypedDict):
    """What is behind each address; whether there is `ib_write_bw` (`perftest`); the engines that use the links."""

    addresses: Mapping[str, Fields]
    perftest: bool
    units: list[str]


class LinkCounters(TypedDict):
    """What is counted behind an address: errors of RDMA by name; bytes as Ethernet's driver counts them and as that of
    RDMA does, 0 where it does not."""

    errors: Mapping[str, int]
    sent: list[int]
    received: list[int]


class CellRequest(TypedDict):
    """So many streamed completions at once, of `tokens` after `context` tokens of prompt, in `seconds` at most each."""

    ask: ProbeAsk
    concurrency: int
    context: int
    tokens: int
    seconds: float


class GcLook(StateAsk):
    """What the inventory needs stands in `declared`, by the words of `Resource.uses`.

    `former` is the name that the cluster had before; `foreign`: what sparkops did not bring is listed too.
    """

    cluster: str
    former: str
    kinds: list[str]
    declared: Mapping[str, Sequence[str]]
    foreign: bool


class GcRemove(GcLook):
    """Kinds and names of what was chosen."""

    items: list[tuple[str, str]]


class GcAsk(GcLook):
    """One thing by the kind and name of its claim; the units and specs of the paths in `leaving` go before it."""

    what: str
    name: str
    leaving: list[str]


class ItemTold(TypedDict):
    """What can be given back. `bytes` become free with it; `kept` is why it stays, None for what can go.

    `kind` and `name` are for people; `by` is the kind whose `reclaim` removes it, `claims` those whose claim goes with
    it. `unknown`: it is kept since it is not known who uses it.
    """

    kind: str
    name: str
    bytes: int
    kept: Reason | None
    unknown: bool
    note: Reason | None
    by: str
    claims: list[str]


class AdoptLook(TypedDict):
    """What is declared, each may be empty; `chosen` and `chosen_unit` name the one that is meant."""

    image: str
    container: str
    port: int
    unit: str
    chosen: str
    chosen_unit: str


class AdoptTold(TypedDict):
    """What stands for the service or in its way, and the ports on which anybody listens."""

    containers: Sequence[Fields]
    units: Sequence[Fields]
    listening: list[int]


class ComparedFiles(TypedDict):
    """Paths, the bytes of those that are `right`, and of the others. Of the `unreadable` it is not known."""

    right: list[str]
    wrong: list[str]
    missing: list[str]
    unreadable: list[str]
    right_bytes: int
    other_bytes: int


class TakeoverAsk(StateAsk):
    """What goes out of the way of the declared `unit`; a container by its `id` and `name`."""

    container: Mapping[str, str] | None
    units: list[str]
    unit: str
