"""One thing after another on all cores at once."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")


def on_all_cores(function: Callable[[Thing], object], things: Iterable[Thing]) -> None:
    """Call it for each thing, side by side in threads; the first error ends it."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done in [pool.submit(function, thing) for thing in things]:
            done.result()
