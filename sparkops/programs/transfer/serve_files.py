"""The job of a node that passes a checkpoint's files on, those that are proven, by their number in the manifest.

A `GET` has a Range. What is not proven yet is answered with 425, with 410 once nobody works on it.
"""

import contextlib
import json
import os
import socket
import ssl
import stat
import threading
import time
from typing import Any

from sparkops.core import frames
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints import verify as proof
from sparkops.programs.checkpoints.folder import Place
from sparkops.programs.fetch.partial_file import STORE
from sparkops.programs.transfer import server
from sparkops.worker.calls import Call
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights

BLOCK = 1 << 20
LOOK = 1.0
"""Seconds between two looks at how far the node is."""

State = dict[str, Any]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def begin(call: Call, args: State) -> State:
    """Start the relay, or find it running; see `passing.begin`.

    `args` has beside that: folder, state_dir, owner, files (of the manifest), quiet (seconds without a job on the
    checkpoint, and without a push to it, after which no more is coming; counted from the first request on).
    """
    return server.begin(args["folder"], __name__, args)


def serve(job: jobs.Job, args: State) -> State:
    """The job; see `passing.serve`."""
    place = Place(args["folder"])
    existing = place.open()
    who = proof.who_of(args["owner"], existing)
    if existing is not None:
        os.close(existing)
    work = job.beside(f"checkpoint {place.folder}")
    return server.serve(
        job,
        args,
        who,
        lambda channel, say: Holdings(args["files"], args["quiet"], channel, say),
        lambda channel: _tell(channel, place, args, work),
    )


def _tell(channel: socket.socket, place: Place, args: State, work: str) -> None:
    """Answer the child's look: the folders as descriptors, what is proven, and how the checkpoint's job (`work`) is."""
    published = place.open()
    staging = _open_or_none(place.beside(place.partial))
    proven: dict[str, str] = {}
    if published is not None:
        index = hashes.Index(args["state_dir"], place.folder)
        for path, size, oid in args["files"]:
            with contextlib.suppress(OSError):
                status = os.stat(path, dir_fd=published, follow_symlinks=False)
                known = index.find(status)
                if known is not None and known[0] == oid and status.st_size == size:
                    proven[path] = hashes.identity(status)
    state = {
        "proven": proven,
        "published": published is not None,
        "working": jobs.alive(work),
        "why": jobs.failure(work),
        "text": str(jobs.said(work).get("text") or ""),
    }
    handles = [each for each in (published, staging) if each is not None]
    try:
        socket.send_fds(channel, [b"\n"], handles)
        channel.sendall(frames.encode(state))
    finally:
        for handle in handles:
            os.close(handle)


def _open_or_none(path: str) -> int | None:
    try:
        return os.open(path, _FOLDER)
    except OSError:
        return None


class Holdings:
    """What of the manifest this node holds, proven, right now: in the published folder or on its way there."""

    def __init__(self, files: list[Any], quiet: float, channel: socket.socket, say: rights.Report) -> None:
        self._quiet = quiet
        self.files = [(str(path), int(size), str(oid)) for path, size, oid in files]
        self.count, self.size = len(self.files), sum(size for _, size, _ in self.files)
        self._channel, self._say = channel, say
        self._answers = channel.makefile("rb")
        self._lock = threading.Lock()
        self._published = self._staging = -1
        self._proven: dict[str, str] = {}
        self._looked = 0.0
        self._busy = time.monotonic()
        self.doing = ""
        self.why = ""

    def answer(self, tls: ssl.SSLSocket, number: int, headers: dict[str, str], sent: server.Sent) -> None:
        """The range of a file, or why it can't be had."""
        size = self.files[number][1]
        span = _span(headers.get("range", ""), size)
        if span is None:
            return server.plain(tls, 416, f"the file has {size} bytes")
        handle = self.open(number)
        if handle is None and self.ended:
            return server.plain(tls, 410, self.why or "nothing works on it there any more")
        if handle is None:
            return server.plain(tls, 425, self.doing or "not proven yet")
        try:
            _send(tls, handle, span, size, sent)
        finally:
            os.close(handle)
        return None

    def open(self, number: int) -> int | None:
        """A descriptor of a file that is proven; None where it is not, or not yet."""
        with self._lock:
            handle = self._open(number)
            if handle is None and time.monotonic() - self._looked >= LOOK:
                self._look()
                handle = self._open(number)
            return handle

    @property
    def ended(self) -> bool:
        """Whether nobody works on what is missing here."""
        return time.monotonic() - self._busy > self._quiet

    def _open(self, number: int) -> int | None:
        path, size, oid = self.files[number]
        stored = os.path.join(STORE, oid.replace(":", "-"))
        handle = self._file(self._staging, stored, size)
        if handle is not None:
            if _noted(self._staging, stored) == hashes.lasting(os.fstat(handle)):
                return handle
            os.close(handle)
        handle = self._file(self._published, path, size)
        if handle is not None:
            if self._proven.get(path) == hashes.identity(os.fstat(handle)):
                return handle
            os.close(handle)
        return None

    def _file(self, folder: int, path: str, size: int) -> int | None:
        if folder < 0:
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return None
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return handle
        os.close(handle)
        return None

    def _look(self) -> None:
        """Ask the parent anew."""
        first = not self._looked
        self._looked = time.monotonic()
        self._say({"look": True})
        _, handles, _, _ = socket.recv_fds(self._channel, 1, 2)
        state = frames.read(self._answers) or {}
        for old in (self._published, self._staging):
            if old >= 0:
                os.close(old)
        self._published = handles.pop(0) if state["published"] else -1
        self._staging = handles.pop(0) if handles else -1
        self._proven = state["proven"]
        self.doing, self.why = state["text"], state["why"]
        if first or state["working"] or self._pushed():
            self._busy = time.monotonic()

    def _pushed(self) -> bool:
        """Whether the controller has pushed something just now: then no job runs, and yet more is to come."""
        if self._staging < 0:
            return False
        newest = 0.0
        with contextlib.suppress(OSError):
            store = os.open(STORE, _FOLDER, dir_fd=self._staging)
            try:
                pushed = [name for name in os.listdir(store) if name.endswith(".pushed")]
                newest = max((os.stat(name, dir_fd=store).st_mtime for name in pushed), default=0.0)
            finally:
                os.close(store)
        return time.time() - newest < self._quiet


def _send(tls: ssl.SSLSocket, handle: int, span: tuple[int, int], size: int, sent: server.Sent) -> None:
    start, end = span
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n"
    tls.sendall(f"{head}Content-Length: {end - start}\r\n\r\n".encode())
    position, buffer = start, memoryview(bytearray(BLOCK))
    while position < end:
        size = os.preadv(handle, [buffer[: min(BLOCK, end - position)]], position)
        if not size:
            raise OSError("the file became shorter")
        tls.sendall(buffer[:size])
        position += size
        sent(size)
    hashes.drop_cache(handle, start, end - start)


def _noted(staging: int, stored: str) -> Any:
    """The mark that an earlier proof left beside a content of the store."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        handle = os.open(stored + ".json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=staging)
        with open(handle, "rb") as file:
            return json.loads(file.read(1 << 20)).get("proven")
    return None


def _span(text: str, size: int) -> tuple[int, int] | None:
    """First byte and end of a Range; the whole file without one, None for one that can't be had."""
    if not text:
        return 0, size
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not (text.startswith("bytes=") and dash and first.isdigit() and last.isdigit()):
        return None
    start, end = int(first), int(last) + 1
    return (start, end) if start < end <= size else None


JOBS = {"serve": serve}
