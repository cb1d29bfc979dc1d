"""The output of programs on several nodes, in whole lines as they come, over one session each.

It must not know what the programs are. Closing the iterator ends them.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.nodes.session import Channel
from sparkops.reconcile.fleet import Fleet

LONGEST = 256 << 10
"""Bytes of a line; a longer one is cut in pieces."""
AHEAD = 16
"""Blocks (of 512 KiB at most, and a rest) that are buffered for a slow reader; the nodes wait meanwhile."""


@dataclass(frozen=True, slots=True)
class Block:
    """One or more whole lines, without the last one's end. `stream` is 1 for standard output, 2 for error output."""

    node: str
    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """A node's program has ended: the worker's answer, or the error that kept it from one."""

    node: str
    answer: Fields | None = None
    error: SparkopsError | None = None


def lines(fleet: Fleet, call: str, asks: Mapping[str, Mapping[str, object]], jobs: int) -> Iterator[Block | Ended]:
    """`call` on each node of `asks` with its arguments, at most `jobs` at once; one Ended for each node."""
    inbox: queue.Queue[Block | Ended] = queue.Queue(AHEAD)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    channels: list[Channel] = []
    for node in asks:
        waiting.put(node)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                node = waiting.get_nowait()
                inbox.put(_one(fleet, node, call, asks[node], channels, inbox))

    for _ in range(min(jobs, len(asks))):
        threading.Thread(target=work, daemon=True).start()
    left = len(asks)
    try:
        while left:
            item = inbox.get()
            left -= isinstance(item, Ended)
            yield item
    finally:
        for channel in channels:
            with contextlib.suppress(SparkopsError):
                channel.close()


def _one(
    fleet: Fleet,
    node: str,
    call: str,
    args: Mapping[str, object],
    channels: list[Channel],
    inbox: queue.Queue[Block | Ended],
) -> Ended:
    try:
        channel = fleet.session(node).channel(call, args)
        channels.append(channel)
        for stream, data in split(channel):
            inbox.put(Block(node, stream, data))
    except SparkopsError as error:
        return Ended(node, error=error)
    return Ended(node, answer=channel.result if isinstance(channel.result, Mapping) else None)


def split(channel: Channel) -> Iterator[tuple[int, bytes]]:
    """The lines of both streams of a program as soon as they are whole: those of a chunk together."""
    rest = {1: b"", 2: b""}
    while chunk := channel.read():
        stream = chunk[0] if chunk[0] in rest else 1
        whole, end, last = (rest[stream] + chunk[1:]).rpartition(b"\n")
        if end:
            yield stream, whole
        while len(last) > LONGEST:
            yield stream, last[:LONGEST]
            last = last[LONGEST:]
        rest[stream] = last
    for stream, data in rest.items():
        if data:
            yield stream, data
