"""What every command relies on, whatever started it: three open streams, UTF-8, and a home folder.

cron, systemd, containers and CI start programs without a standard stream, without HOME or with a locale of their own.
None of that is a reason to fail, or to write text in another encoding than everywhere else.
"""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import sys


class Output(io.TextIOWrapper):
    """Standard output; an error of writing it names it."""

    def write(self, text: str) -> int:
        """Write, or raise OSError with the stream's name as its file; a closed pipe stays BrokenPipeError."""
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error

    def flush(self) -> None:
        """As `write`."""
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, STANDARD_OUTPUT) from error


class Diagnostics(io.TextIOWrapper):
    """Standard error: progress and messages that nobody can read must not end a run that goes well."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """As `write`."""
        with contextlib.suppress(OSError):
            super().flush()


STANDARD_OUTPUT = "standard output"
MACHINE = 74
"""This machine cannot read or write something: a full disk, a closed output, a missing permission."""


def prepare() -> None:
    """Open what is closed, in UTF-8, and set HOME where it names no absolute folder."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the process's own
    sys.stdout = Output(_binary(1), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr = Diagnostics(_binary(2), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    if not os.environ.get("HOME", "").startswith("/"):
        os.environ["HOME"] = _home()


def _binary(number: int) -> io.BufferedWriter:
    return open(number, "wb", closefd=False)


def _home() -> str:
    """The home of this user in the users' database; Debian's word for none where the user is in none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return "/nonexistent"
