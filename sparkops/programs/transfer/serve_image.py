"""The job of a node that passes an image on: what its engine saves, as the one number of the relay.

The engine's socket stays with the parent, for who may speak with it is root; the child gets the end of a pipe. The
parent cuts the archive into HTTP's chunks, so that a receiver can tell its end from one that broke off.
"""

import os
import socket
import ssl
import threading
from typing import Any

from sparkops.programs import docker
from sparkops.programs.transfer import server
from sparkops.worker.calls import Refused
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights

BLOCK = 1 << 20
SILENCE = 500.0
"""Seconds in which the engine has to say something: it lays out an archive before it sends it."""

State = dict[str, Any]


def begin(args: State) -> State:
    """Start the relay, or find it running; see `passing.begin`.

    `args` has beside that: name, image (the engine's id, which no other image can get), size (bytes), at.
    """
    return server.begin(f"image {args['name']}", __name__, args)


def serve(job: jobs.Job, args: State) -> State:
    """The job; see `passing.serve`."""
    return server.serve(
        job,
        args,
        rights.user(""),
        lambda channel, say: Saved(args["size"], channel, say),
        lambda channel: _tell(channel, args),
    )


class Saved:
    """The child's side: each request is a save of its own."""

    count = 1

    def __init__(self, size: int, channel: socket.socket, say: rights.Report) -> None:
        self.size = size
        self._channel, self._say = channel, say
        self._lock = threading.Lock()

    def answer(self, tls: ssl.SSLSocket, number: int, headers: dict[str, str], sent: server.Sent) -> None:
        """The archive from its beginning; the connection ends with it."""
        with self._lock:
            self._say({"look": True})
            _, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
        tls.settimeout(SILENCE)
        try:
            tls.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
            while block := os.read(handles[0], BLOCK):
                tls.sendall(block)
                sent(len(block))
        finally:
            os.close(handles[0])
        tls.shutdown(socket.SHUT_RDWR)


def _tell(channel: socket.socket, args: State) -> None:
    """Begin a save, and hand the child the end of the pipe that it comes out of."""
    reading, writing = os.pipe()
    threading.Thread(target=_save, args=(writing, args), daemon=True).start()
    try:
        socket.send_fds(channel, [b"\n"], [reading])
    finally:
        os.close(reading)


def _save(handle: int, args: State) -> None:
    """The archive in chunks; the last one only where the engine came to its end."""
    try:
        with open(handle, "wb") as pipe:
            for block in docker.content(f"/images/{docker.quoted(args['image'])}/get", SILENCE, at=args.get("at")):
                pipe.write(b"%x\r\n" % len(block) + block + b"\r\n")
            pipe.write(b"0\r\n\r\n")
    except (OSError, Refused) as error:
        server.log(f"{args['name']}: {error}")


JOBS = {"serve": serve}
