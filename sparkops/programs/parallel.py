"""Things that are done side by side in threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def on_all_cores(function: Callable[[Thing], object], things: Iterable[Thing]) -> None:
    """Call it for each thing, as many at a time as there are cores; raises the first error."""
    at_once(function, things, len(os.sched_getaffinity(0)))


def at_once(function: Callable[[Thing], Result], things: Iterable[Thing], threads: int) -> list[Result]:
    """What it returns for each thing, so many at a time; raises the first error."""
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(function, thing) for thing in things]]
