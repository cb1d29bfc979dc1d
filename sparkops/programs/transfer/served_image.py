"""An image as the one number of a transfer: each request is a save of its own by the engine.

Who may speak with the engine is root, so the caller begins the save: it answers each question on the channel with the
end of a pipe, out of which the archive comes in HTTP's chunks. The last chunk comes only where the engine came to its
end: by that a receiver tells a whole archive from one that broke off.
"""

import socket
import threading

from sparkops.programs.transfer.server import Request

BLOCK = 1 << 20
SILENCE = 500.0
"""Seconds in which the engine has to send something: it lays out an archive before it sends it."""


class ServedImage:
    """An image of `size` bytes."""

    count = 1

    def __init__(self, size: int, channel: socket.socket) -> None:
        self.size = size
        self._channel = channel
        self._lock = threading.Lock()

    def answer(self, request: Request, number: int) -> None:
        """The archive from its beginning; the connection ends with it."""
        with self._lock:
            self._channel.sendall(b"?")
            _, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
        if not handles:
            raise OSError("the caller is gone")
        request.connection.settimeout(SILENCE)
        request.send_response_only(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.send_header("Connection", "close")
        request.end_headers()
        with open(handles[0], "rb", buffering=0) as pipe:
            while block := pipe.read(BLOCK):
                request.connection.sendall(block)
                request.sent(len(block))
