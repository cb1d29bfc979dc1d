"""The bytes of an answer in large blocks, whatever the pieces in which they come.

A piece is what the kernel has at the moment, 64 kB or less on a fast way; storing and counting each costs more than
receiving it. It must not know what the bytes are.
"""

import http.client
import time

BLOCK = 1 << 20
WAIT = 0.5
"""Seconds after which a block that does not fill is passed on as it is."""


class Gathered:
    """The bytes `start` to `end` of a file in an answer without HTTP's chunks, read from under it into `buffer`.

    `ranged` is False where it is the whole. The answer's own `read1` copies each piece, which takes 8 % more processor
    time.
    """

    def __init__(
        self, response: http.client.HTTPResponse, buffer: memoryview, start: int, end: int, *, ranged: bool = True
    ) -> None:
        self._response, self._buffer, self.left = response, buffer, end - start
        self.start, self.end, self.ranged = start, end, ranged
        self._broken: Exception | None = None

    def take(self, limit: int) -> memoryview:
        """The next bytes: a block, or what came in WAIT seconds or before it broke. Good until the next call."""
        if self._broken is not None:
            raise self._broken
        block, size = self._buffer[: min(limit, self.left)], 0
        until = time.monotonic() + WAIT
        while size < len(block) and time.monotonic() < until:
            try:
                count = self._response.fp.readinto1(block[size:])
            except OSError as error:
                self._broken = error
                break
            if not count:
                break
            size += count
        if self._broken is not None and not size:
            raise self._broken
        self.left -= size
        return block[:size]

    def finish(self) -> bool:
        """After the last byte: whether the connection can serve another request."""
        self._response.close()
        return self.left == 0
