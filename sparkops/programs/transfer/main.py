"""Serve content to other nodes of a run: the program, run as the owner of the content.

It listens on the socket that it is handed, and asks for everything that only its caller may open over the `channel`: a
byte is a question, the answer is described by what is served (`ServedFiles`, `ServedImage`). It ends when all receivers
are done, when no request came for a while, or when the certificates end. The result is `{sent, done}`: bytes, and the
receivers that are done. Notices: `transfer-connection-failed`, `transfer-request-refused`.
"""

import socket
from typing import Literal, TypedDict

from sparkops.core.kind_messages import Credentials
from sparkops.programs.checkpoints.folder import Files
from sparkops.programs.protocol import Output
from sparkops.programs.transfer import tls
from sparkops.programs.transfer.served_files import ServedFiles
from sparkops.programs.transfer.served_image import ServedImage
from sparkops.programs.transfer.server import Served, Server


class Spec(TypedDict, total=False):
    """What the program is given.

    content: what is served. listener, channel: descriptors of sockets. receivers: names of nodes.
    idle, seconds: without a request, and at all, until it ends.
    files: of a manifest, `[[path, bytes, oid]]`; quiet: `ServedFiles`. size: bytes of the image.
    """

    content: Literal["files", "image"]
    listener: int
    channel: int
    credentials: Credentials
    receivers: list[str]
    idle: float
    seconds: float
    files: Files
    quiet: float
    size: int


def work(spec: Spec, output: Output) -> dict[str, object]:
    channel = socket.socket(fileno=spec["channel"])
    content: Served
    if spec["content"] == "files":
        content = ServedFiles(spec["files"], spec["quiet"], channel)
    else:
        content = ServedImage(spec["size"], channel)
    server = Server(
        socket.socket(fileno=spec["listener"]),
        tls.context(spec["credentials"], serving=True),
        content,
        output,
        receivers=frozenset(spec["receivers"]),
        idle=spec["idle"],
        seconds=spec["seconds"],
    )
    return server.run()
