"""What every way to a node offers: run a program there and speak with it over its standard input and output.

Nothing here knows SSH, sudo or the worker.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

STDERR_KEPT = 8192
"""Bytes of a program's standard error that are kept: the last ones."""


class Stream(Protocol):
    """One running program. One thread may read while another writes."""

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """From 1 to `size` bytes of its output as soon as there are any; b"" at its end.

        `timeout` is in seconds. Raises TimeoutError, and ConnectionFailed when the node is lost.
        """
        ...

    def write(self, data: bytes) -> None:
        """All of `data` to its input. Raises ConnectionFailed when the node or the program is gone."""
        ...

    def close_input(self) -> None:
        """Its input ends here. Harmless where it has ended already."""
        ...

    def close(self) -> None:
        """Let go of the program; it sees both ends closed."""
        ...

    def stderr(self) -> str:
        """The last STDERR_KEPT bytes of its standard error so far, safe to print."""
        ...

    def exit_status(self, timeout: float) -> int | None:
        """How it ended, waiting for at most `timeout` seconds; None while it runs or where that got lost.

        A program ended by a signal gives 128 + the signal's number, as in a shell.
        """
        ...


class Transport(Protocol):
    """A way to one node, open until it is closed."""

    @property
    def root(self) -> bool:
        """Programs run as root there without any help."""
        ...

    def execute(self, argv: Sequence[str]) -> Stream:
        """Start a program. Raises ConnectionFailed."""
        ...

    def close(self) -> None:
        """End it and every program's stream on it. Harmless when repeated."""
        ...


def harmless(data: bytes) -> str:
    """Text from a node, safe for a terminal: control characters other than line ends become spaces."""
    if not data.translate(None, _PLAIN):
        return data.decode("ascii")
    text = data.decode(errors="replace").replace("\r\n", "\n")
    return _SUSPECT.sub(lambda found: _shown(found[0]), text)


_PLAIN = bytes((*range(32, 127), 10))
_SUSPECT = re.compile(r"[^\n -~]")


@lru_cache(4096)
def _shown(character: str) -> str:
    return " " if unicodedata.category(character)[0] == "C" else character


def last_line(text: str) -> str:
    """The last line that says something, at most 300 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
