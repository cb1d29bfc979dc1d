"""The journal entries of a service's units; the launcher copies the engine's output into them."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.operate.connect import Context, reach
from sparkops.operate.services import Rank
from sparkops.operate.streams import Ended
from sparkops.operate.streams import lines as output


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of a journal. `time` is seconds since the epoch by the node's clock; `priority` syslog's, 3 is error."""

    time: float
    node: str
    text: str
    priority: int = 6


def logs(
    context: Context,
    chosen: Sequence[Rank],
    *,
    lines: int,
    follow: bool,
    failed: Callable[[str, SparkopsError], None],
) -> Iterator[Entry]:
    """The last `lines` entries of each rank in the order of their times; with `follow` as they come, without end.

    `failed` is called for each node that could not be asked.
    """
    asks = {rank.node: {"unit": rank.unit.name, "lines": lines, "follow": follow} for rank in chosen}
    entries: dict[str, list[Entry]] = {node: [] for node in asks}
    with reach(context, asks, ["exec"]) as fleet:
        for item in output(fleet, "exec.journal", asks, len(asks)):
            if isinstance(item, Ended):
                if item.error is not None:
                    failed(item.node, item.error)
                continue
            found = [parse(item.node, item.stream, line) for line in item.data.split(b"\n")]
            if follow:
                yield from filter(None, found)
            else:
                entries[item.node] += filter(None, found)
    yield from heapq.merge(*entries.values())


def parse(node: str, stream: int, data: bytes) -> Entry | None:
    """An entry out of journalctl's JSON; its complaints, which stand on error output, as entries too.

    A message that is no UTF-8 is a list of bytes there, and null where it is too long to be kept.
    """
    text = data.decode(errors="replace")
    if stream != 1:
        return Entry(0.0, node, text, 4)
    try:
        found = json.loads(text)
        message = found.get("MESSAGE")
        if isinstance(message, list):
            message = bytes(message).decode(errors="replace")
        when, priority = int(found.get("__REALTIME_TIMESTAMP", 0)) / 1e6, int(found.get("PRIORITY", 6))
    except (ValueError, TypeError, AttributeError):
        return Entry(0.0, node, text, 4)
    return Entry(when, node, message if isinstance(message, str) else "", priority) if message is not None else None
