"""Looks at a node side by side, on threads that hold up no exit: one that hangs is given up and delays no other."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

_Answer = TypeVar("_Answer")


def side_by_side(
    looks: Iterable[Callable[[], _Answer]], threads: int, seconds: float, stopping: threading.Event | None = None
) -> Iterator[_Answer]:
    """The answers as they come, of so many at a time; ends when all are there, or after `seconds`.

    A look must not raise. Once it has ended, or `stopping` is set, no further one is begun.
    """
    pending: SimpleQueue[Callable[[], _Answer]] = SimpleQueue()
    finished: SimpleQueue[_Answer] = SimpleQueue()
    over = stopping or threading.Event()
    count = 0
    for count, look in enumerate(looks, 1):  # noqa: B007 - counted below
        pending.put(look)

    def work() -> None:
        with contextlib.suppress(Empty):
            while not over.is_set():
                finished.put(pending.get_nowait()())

    for _ in range(min(threads, count)):
        threading.Thread(target=work, daemon=True).start()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(Empty):
        for _ in range(count):
            yield finished.get(timeout=max(0.0, deadline - time.monotonic()))
    over.set()
