"""A limit for the whole of a blocking question, where libraries limit each silence only, or nothing at all.

A name server, proxy or server that sends a byte now and then keeps every time limit of a single read. The question is
asked on a thread of its own; past the limit it is given up there, and ends with the process at the latest.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


class DeadlineExceeded(TimeoutError):
    """The question was not answered as a whole within `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no complete answer within {seconds:g} s")
        self.seconds = seconds


def within(seconds: float, question: Callable[[], _Answer]) -> _Answer:
    """The answer of `question`, or its exception; raises DeadlineExceeded where neither is there in time."""
    answers: list[_Answer] = []
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:  # noqa: BLE001 - raised again by who asked
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if answers:
        return answers[0]
    raise DeadlineExceeded(seconds)
