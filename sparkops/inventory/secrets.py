"""Turning a declared reference to a secret into the secret, at use, once.

Errors name the reference and never the value. It must not know what a secret is for.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from sparkops.core import process_group
from sparkops.core.deadline import DeadlineExceeded, within
from sparkops.core.errors import SecretError
from sparkops.core.secrets import MASK, Secret, SecretRef

COMMAND_TIMEOUT = 60.0
MAX_BYTES = 1024 * 1024
PATIENCE = 2.0
"""Seconds from SIGTERM to SIGKILL for what a `!command` started."""


class Secrets:
    """Reads each reference at most once. `timeout` bounds a `!command`, in seconds."""

    def __init__(self, environ: Mapping[str, str] | None = None, *, timeout: float = COMMAND_TIMEOUT) -> None:
        self._environ = os.environ if environ is None else environ
        self._timeout = timeout
        self._known: dict[tuple[str, str | tuple[str, ...], str], Secret] = {}

    def resolve(self, ref: SecretRef) -> Secret:
        """The secret. Raises SecretError when it cannot be read or is empty."""
        key = (ref.source, ref.argument, ref.base)
        if key not in self._known:
            value = self._read(ref)
            if not value:
                raise SecretError.of("secret-empty", where=ref.where, ref=str(ref))
            self._known[key] = Secret(value, origin=str(ref))
        return self._known[key]

    def _read(self, ref: SecretRef) -> str:
        if isinstance(ref.argument, tuple):
            return self._command(ref, ref.argument)
        if ref.source == "env":
            if ref.argument not in self._environ:
                raise SecretError.of("secret-not-in-environment", where=ref.where, ref=str(ref), argument=ref.argument)
            return self._environ[ref.argument]
        return self._file(ref, ref.argument)

    def _file(self, ref: SecretRef, argument: str) -> str:
        path = Path(ref.base) / Path(argument).expanduser()
        try:
            with path.open("rb") as file:
                return _text(ref, file.read(MAX_BYTES + 1))
        except OSError as error:
            raise SecretError.of(
                "secret-file-unreadable", where=ref.where, ref=str(ref), reason=error.strerror, path=path
            ) from None

    def _command(self, ref: SecretRef, argv: tuple[str, ...]) -> str:
        deadline = time.monotonic() + self._timeout
        try:
            process = subprocess.Popen(
                argv, cwd=ref.base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise SecretError.of(
                "secret-command-not-started", where=ref.where, secret=str(ref), error=error.strerror
            ) from None
        output = process.stdout
        assert output is not None
        try:
            content = within(self._timeout, lambda: output.read(MAX_BYTES + 1))
            if len(content) > MAX_BYTES:
                process_group.end(process, PATIENCE)
            status = process.wait(max(0.0, deadline - time.monotonic()))
        except (DeadlineExceeded, subprocess.TimeoutExpired):
            process_group.end(process, PATIENCE)
            raise SecretError.of(
                "secret-command-not-ended", where=ref.where, secret=str(ref), seconds=self._timeout
            ) from None
        if len(content) <= MAX_BYTES and status != 0:
            raise SecretError.of("secret-command-failed", where=ref.where, secret=str(ref), status=status)
        return _text(ref, content)


class Masked:
    """Stands in for `Secrets` where none may be read: every secret is `***`."""

    def resolve(self, ref: SecretRef) -> Secret:
        return Secret(MASK, origin=str(ref))


def _text(ref: SecretRef, content: bytes) -> str:
    """The text of a secret without its last line end (an editor or `echo` put it there)."""
    if len(content) > MAX_BYTES:
        raise SecretError.of("secret-too-long", where=ref.where, ref=str(ref), limit=MAX_BYTES)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretError.of("secret-not-utf8", where=ref.where, ref=str(ref)) from None
    return text[:-1].removesuffix("\r") if text.endswith("\n") else text
