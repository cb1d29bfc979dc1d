"""The files of a manifest by their number in it: those that are proven, in the published folder or on their way there.

A `GET` has a Range. What is not proven yet is answered with 425 and a text; what is not coming any more with 410 and
the error that ended the work there, as JSON. On the channel the caller answers each question with the descriptors of
the published and the staging folder, as far as they are there, and a frame:

    proven     identities of files of the published folder, by path
    published  whether the first descriptor is the published folder
    working    whether a job brings the content
    error      the error of the last such job, or None
    text       how far it is
"""

import contextlib
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable

from sparkops.core import frames
from sparkops.core.descriptors import FILE, FOLDER, closing
from sparkops.programs.checkpoints.folder import Files
from sparkops.programs.checkpoints.hashes import drop_cache
from sparkops.programs.checkpoints.proof import identity, lasting
from sparkops.programs.fetch.partial_file import STORE
from sparkops.programs.transfer.server import Request

BLOCK = 1 << 20
LOOK = 1.0
"""Seconds between two questions to the caller."""
_FILE = FILE | os.O_NONBLOCK


class ServedFiles:
    """`files` are `[path, bytes, oid]`; after `quiet` seconds without a job or a push the rest is not coming."""

    def __init__(self, files: Files, quiet: float, channel: socket.socket) -> None:
        self._files = [(str(path), int(size), str(oid)) for path, size, oid in files]
        self.count, self.size = len(self._files), sum(size for _, size, _ in self._files)
        self._quiet = quiet
        self._channel, self._answers = channel, channel.makefile("rb")
        self._lock = threading.Lock()
        self._published = self._staging = -1
        self._proven: dict[str, str] = {}
        self._asked = 0.0
        self._busy = time.monotonic()
        self._text = ""
        self._error: object = None

    def answer(self, request: Request, number: int) -> None:
        """The range of a file, or why it can't be had."""
        size = self._files[number][1]
        span = _span(request.headers.get("Range", ""), size)
        if span is None:
            return request.reply(416, f"the file has {size} bytes")
        handle = self._descriptor(number)
        if handle is None and time.monotonic() - self._busy > self._quiet:
            return request.reply(410, json.dumps(self._error), "application/json")
        if handle is None:
            return request.reply(425, self._text or "not proven yet")
        with closing(handle):
            return _send(request, handle, span, size)

    def _descriptor(self, number: int) -> int | None:
        """A descriptor of a file that is proven; None where it is not, or not yet."""
        with self._lock:
            handle = self._open(number)
            if handle is None and time.monotonic() - self._asked >= LOOK:
                self._ask()
                handle = self._open(number)
            return handle

    def _open(self, number: int) -> int | None:
        path, size, oid = self._files[number]
        stored = os.path.join(STORE, oid.replace(":", "-"))
        handle = _open_file(
            self._staging, stored, size, lambda now: _proven_mark(self._staging, stored) == lasting(now)
        )
        if handle is None:
            handle = _open_file(self._published, path, size, lambda now: self._proven.get(path) == identity(now))
        return handle

    def _ask(self) -> None:
        first = not self._asked
        self._asked = time.monotonic()
        self._channel.sendall(b"?")
        _, handles, _, _ = socket.recv_fds(self._channel, 1, 2)
        state = frames.read(self._answers)
        if state is None:
            raise OSError("the caller is gone")
        for old in (self._published, self._staging):
            if old >= 0:
                os.close(old)
        self._published = handles.pop(0) if state["published"] else -1
        self._staging = handles.pop(0) if handles else -1
        self._proven = state["proven"]
        self._text, self._error = state["text"], state["error"]
        if first or state["working"] or self._pushed():
            self._busy = time.monotonic()

    def _pushed(self) -> bool:
        """Whether the controller has pushed something just now: then no job runs, and yet more is to come."""
        if self._staging < 0:
            return False
        newest = 0.0
        with contextlib.suppress(OSError), closing(os.open(STORE, FOLDER, dir_fd=self._staging)) as store:
            pushed = [name for name in os.listdir(store) if name.endswith(".pushed")]
            newest = max((os.stat(name, dir_fd=store).st_mtime for name in pushed), default=0.0)
        return time.time() - newest < self._quiet


def _open_file(folder: int, path: str, size: int, proven: Callable[[os.stat_result], bool]) -> int | None:
    """A regular file of this size that is `proven` in an open folder, no link on its last part."""
    if folder < 0:
        return None
    try:
        handle = os.open(path, _FILE, dir_fd=folder)
    except OSError:
        return None
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_size == size and proven(status):
        return handle
    os.close(handle)
    return None


def _proven_mark(staging: int, stored: str) -> object:
    """The identity at which a content of the store was proven, as it is noted beside it."""
    try:
        with open(os.open(stored + ".json", _FILE, dir_fd=staging), "rb") as file:
            return json.loads(file.read(1 << 20)).get("proven")
    except (OSError, ValueError, AttributeError):
        return None


def _send(request: Request, handle: int, span: tuple[int, int], size: int) -> None:
    position, end = span
    request.send_response_only(206)
    request.send_header("Content-Range", f"bytes {position}-{end - 1}/{size}")
    request.send_header("Content-Length", str(end - position))
    request.end_headers()
    buffer = memoryview(bytearray(BLOCK))
    while position < end:
        count = os.preadv(handle, [buffer[: min(BLOCK, end - position)]], position)
        if not count:
            raise OSError("the file became shorter")
        request.connection.sendall(buffer[:count])
        position += count
        request.sent(count)
    drop_cache(handle, span[0], end - span[0])


def _span(text: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a Range; the whole file without one, None for one that can't be had."""
    if not text:
        return 0, size
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not (text.startswith("bytes=") and dash and first.isdecimal() and last.isdecimal()):
        return None
    start, end = int(first), int(last) + 1
    return (start, end) if start < end <= size else None
