"""The machine that sparkops itself runs on, by the same two interfaces as a node behind SSH."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import IO

from sparkops.core.errors import ConnectionFailed, WorkerFailed
from sparkops.nodes.transport import STDERR_KEPT, harmless


class LocalTransport:
    """Programs as children of this process, in sessions of their own (a Ctrl-C here is not theirs)."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._streams: list[LocalStream] = []

    @property
    def root(self) -> bool:
        return os.geteuid() == 0

    def execute(self, argv: Sequence[str]) -> LocalStream:
        """See Transport. Raises WorkerFailed where there is no such program."""
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerFailed.of(
                "local-program-not-started", where=self._node, argv=argv[0], reason=error.strerror
            ) from None
        stream = LocalStream(self._node, process)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


class LocalStream:
    """One child process."""

    def __init__(self, node: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._node = node
        self._process = process
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        self._said = b""
        self._deaf = False
        self._lock = threading.Lock()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        """See Stream. What the child says on its standard error is taken in meanwhile."""
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._out.closed:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if self._readable(self._out, left):
                    with self._lock:  # so that its number is not another file's meanwhile
                        return os.read(self._out.fileno(), size)
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError
        except ValueError:
            pass
        return b""

    def _readable(self, file: IO[bytes] | None, timeout: float | None) -> bool:
        """Whether `file` has something, or standard error had, which is drained. ValueError when closed meanwhile."""
        poll = select.poll()
        out = -1 if file is None else file.fileno()
        err = -1 if self._deaf else self._err.fileno()
        for number in (out, err):
            if number >= 0:
                poll.register(number, select.POLLIN)
        ready = [number for number, _ in poll.poll(None if timeout is None else timeout * 1000)]
        if err in ready:
            with self._lock:
                said = os.read(self._err.fileno(), 65536)
            self._deaf = not said
            self._said = (self._said + said)[-STDERR_KEPT:]
        return out in ready or (file is None and err in ready)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._in.write(view) or 0 :]
        except (OSError, ValueError):
            raise ConnectionFailed.of("local-program-ended", where=self._node) from None

    def close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._in.close()

    def close(self) -> None:
        """See Stream; the child's end is collected, for at most a second here and else in the background."""
        self.close_input()
        with self._lock:
            self._out.close()
            self._err.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            threading.Thread(target=self._process.wait, name="collect", daemon=True).start()

    def stderr(self) -> str:
        with contextlib.suppress(ValueError):
            while not self._deaf and self._readable(None, 0):
                pass
        return harmless(self._said)

    def exit_status(self, timeout: float) -> int | None:
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return 128 - status if status < 0 else status
