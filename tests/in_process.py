"""Nodes that are threads of this process: the real worker behind the interface of every transport, without a program.

They share this machine's files, so what is declared of each needs a folder of its own; acts that belong to a whole
machine (packages, accounts, units) are not for them.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence

from sparkops.core.errors import ConnectionFailed
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.worker.main import Loop


class InProcess(Connections):
    """Ways to such nodes, whatever the target says of the way."""

    def __init__(self) -> None:
        super().__init__(Passwords())

    def connect(self, target: Target) -> Node:
        return Node(target.name)


class Node:
    """A transport. See sparkops.nodes.transport."""

    root = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: list[Worker] = []

    def execute(self, argv: Sequence[str]) -> Worker:
        """The worker, whatever program would run it; `argv` ends with the mark that it says first."""
        self.streams.append(Worker(self.name, argv[-1].encode()))
        return self.streams[-1]

    def close(self) -> None:
        for each in self.streams:
            each.close()


class Worker:
    """A stream to a worker's loop over two pipes."""

    def __init__(self, name: str, mark: bytes) -> None:
        self.name = name
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        self._closing = threading.Lock()
        self._open = {self._out, self._in}
        arguments = (mark, theirs_in, theirs_out)
        self._thread = threading.Thread(target=self._serve, args=arguments, name=f"node {name}", daemon=True)
        self._thread.start()

    @staticmethod
    def _serve(mark: bytes, source: int, sink: int) -> None:
        with open(source, "rb") as reading, open(sink, "wb") as writing:
            writing.write(mark[::-1] + b"+")
            writing.flush()
            reading.read(len(mark))
            reading.read(int.from_bytes(reading.read(8), "big"))
            loop = Loop(reading, writing)
            loop.run()

    def read(self, size: int, timeout: float | None = None) -> bytes:
        try:
            waiting = select.poll()
            waiting.register(self._in, select.POLLIN)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError
            return os.read(self._in, size)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            return b""  # closed meanwhile

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._out, view) :]
        except OSError:
            raise ConnectionFailed.of("local-program-ended", where=self.name) from None

    def close_input(self) -> None:
        self._close(self._out)

    def close(self) -> None:
        self._close(self._out)
        self._thread.join(5)
        self._close(self._in)

    def _close(self, end: int) -> None:
        with self._closing:
            if end in self._open:
                self._open.remove(end)
                os.close(end)

    def stderr(self) -> str:
        return ""

    def exit_status(self, timeout: float) -> int | None:
        return None if self._thread.is_alive() else 0
