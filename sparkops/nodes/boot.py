"""How a program gets to a node's Python, and as root where sudo allows it, in one exec and without a file.

BOOT is a command line argument; it says that it is there, then takes the program itself from standard input. It must
work with every Python 3 (to say that one is too old) and hold no single quote, backslash or exclamation mark, so that
every login shell reads it alike.
"""

from __future__ import annotations

import re
import secrets
import time

from sparkops.core.errors import BecomeFailed, NodeError, WorkerFailed
from sparkops.core.secrets import Secret
from sparkops.nodes.passwords import SudoRefused
from sparkops.nodes.transport import Stream, Transport, harmless, last_line

BOOT = """
import os, sys
def take(size):
    data = b""
    while len(data) < size:
        part = os.read(0, min(size - len(data), 65536))
        if not part:
            sys.exit(0)
        data += part
    return data
mark = sys.argv[1].encode()
if sys.version_info < (3, 10):
    os.write(1, mark[::-1] + b"-" + sys.version.split()[0].encode() + b";")
    sys.exit(0)
os.write(1, mark[::-1] + b"+")
seen = b""
while seen != mark:
    seen = (seen + take(1))[-len(mark):]
program = take(int.from_bytes(take(8), "big"))
exec(compile(program, "<worker>", "exec", dont_inherit=True))
"""
"""Says the mark backwards (an echo of the command line is not mistaken for it), drops a password that sudo did not
want, then runs exactly the bytes announced as `__main__`; descriptors 0 and 1 stay raw, nothing more has been read."""

NOISE = 65536
"""Bytes that a login shell may print before BOOT speaks."""
LIMIT = 60.0
"""Seconds until BOOT must have spoken; a node that swaps is slow, and a dead one is noticed by the transport."""


class PasswordNeeded(BecomeFailed):
    """sudo wants a password, and none was given to it."""


def start(transport: Transport, node: str, program: bytes, *, become: bool, password: Secret | None = None) -> Stream:
    """Run `program` by the node's Python, as root where `become`; its stream begins with its own first byte.

    With a password, exactly one try of it is made. Raises BecomeFailed (PasswordNeeded where sudo asks and there is
    none), WorkerFailed where Python is missing, too old or silent, ConnectionFailed.
    """
    mark = secrets.token_hex(12)
    prompt = f"[{secrets.token_hex(6)}]"
    python = ["python3", "-I", "-S", "-c", BOOT, mark]
    stream = transport.execute([*(_sudo(prompt if password else None) if become else []), *python])
    load = mark.encode() + len(program).to_bytes(8, "big") + program
    try:
        if password is None:
            _send(stream, load)
            early = _ready(stream, node, mark)
        else:
            _send(stream, password.reveal().replace("\n", "").encode() + b"\n")
            early = _ready(stream, node, mark, prompt)
            stream.write(load)
    except BaseException:
        stream.close()
        raise
    return _Resumed(stream, early)


def _sudo(prompt: str | None) -> list[str]:
    """sudo's own prompt is our signal: the second one means that the password was wrong."""
    if prompt is None:
        return ["sudo", "-n", "-H", "--"]
    return ["sudo", "-S", "-k", "-p", prompt, "-H", "--"]


def _send(stream: Stream, data: bytes) -> None:
    """What ended early explains itself on its output; that is read next, and tells more than a broken pipe."""
    try:
        stream.write(data)
    except NodeError:
        return


def _ready(stream: Stream, node: str, mark: str, prompt: str | None = None) -> bytes:
    """Wait for BOOT; returns what came after its word. The patience between two looks at stderr is short for sudo."""
    said = mark[::-1].encode()
    seen = b""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            part = stream.read(65536, timeout=0.05 if prompt else 1.0)
        except TimeoutError:
            _impatient(stream, node, prompt, deadline)
            continue
        if not part:
            raise _never(stream, node, seen, prompt)
        seen += part
        _, found, after = seen.partition(said)
        if found and after[:1] == b"+":
            return after[1:]
        if found and after[:1] == b"-" and b";" in after:
            raise _too_old(node, after[1 : after.index(b";")])
        if len(seen) > NOISE + len(said):
            raise WorkerFailed.of("login-shell-too-noisy", where=node, limit=NOISE // 1024)


def _impatient(stream: Stream, node: str, prompt: str | None, deadline: float) -> None:
    if prompt and stream.stderr().count(prompt) > 1:
        raise _refused(node)
    if time.monotonic() > deadline:
        raise WorkerFailed.of("python-start-timeout", where=node, limit=LIMIT)


def _refused(node: str) -> SudoRefused:
    return SudoRefused.of("sudo-password-refused", where=node)


def _too_old(node: str, version: bytes) -> WorkerFailed:
    return WorkerFailed.of("python-too-old", where=node, version=harmless(version))


_SUDO_SAYS = (
    (
        r"sudo['’]?: (command )?not found|sudo: No such file|Unknown command.*sudo|sudo: Permission denied",
        "sudo-not-installed",
    ),
    (
        r"not in the sudoers|may not run sudo|not allowed to (run|execute)",
        "sudo-not-allowed",
    ),
    (
        r"must have a tty|a terminal is required",
        "sudo-requires-terminal",
    ),
    (r"expired", "sudo-account-expired"),
)


def _never(stream: Stream, node: str, seen: bytes, prompt: str | None) -> NodeError:
    """Why BOOT never spoke, out of the exit status and what was printed."""
    status = stream.exit_status(5.0)
    said = stream.stderr()
    if prompt:
        said = said.replace(prompt, "\n")
    if re.search(r"python3['’]?: (command )?not found|python3: No such file|python3.*: not found", said) or (
        status == 127 and "sudo" not in said
    ):
        return WorkerFailed.of("python-missing", where=node)
    if prompt and re.search(r"incorrect password|no password was provided", said):
        return _refused(node)
    for pattern, id in _SUDO_SAYS:
        if re.search(pattern, said):
            return BecomeFailed.of(id, where=node)
    if prompt is None and re.search(r"^sudo: ", said, re.MULTILINE):
        return PasswordNeeded.of("sudo-password-required", where=node, said=last_line(said))
    words = last_line(said) or last_line(harmless(seen[-2048:]))
    if status == 0 or re.search(r"account is currently not available|SFTP|sftp", said + seen.decode(errors="replace")):
        return WorkerFailed.of("ssh-runs-something-else", where=node, output=f": {words}" if words else "")
    return WorkerFailed.of(
        "python-not-started",
        where=node,
        status="unknown" if status is None else status,
        output=f": {words}" if words else "",
    )


class _Resumed:
    """A stream of which the first bytes have been read already."""

    def __init__(self, stream: Stream, early: bytes) -> None:
        self._stream = stream
        self._early = early
        self.write = stream.write
        self.close_input = stream.close_input
        self.close = stream.close
        self.stderr = stream.stderr
        self.exit_status = stream.exit_status

    def read(self, size: int, timeout: float | None = None) -> bytes:
        if not self._early:
            return self._stream.read(size, timeout)
        data, self._early = self._early[:size], self._early[size:]
        return data
