"""Receive an image from another node into a pipe: the program, run as the node's user.

With `pipe` None it only says that nothing more is needed. Raises Refused `transfer-interrupted` where another
try may succeed.
"""

import os
import signal
from typing import TypedDict

from sparkops.core.kind_messages import PeerOrder
from sparkops.core.messages import Refused
from sparkops.programs.fetch.http import Retry
from sparkops.programs.protocol import Output
from sparkops.programs.transfer.client import Peer
from sparkops.programs.transfer.served_image import SILENCE


class Spec(TypedDict):
    """What the program is given. peer: as `client.Peer` takes it; pipe: the descriptor to write to, or None."""

    peer: PeerOrder
    pipe: int | None


def work(spec: Spec, output: Output) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a read can take SILENCE, and nothing is left half done here
    peer = Peer(spec["peer"], [])
    if spec["pipe"] is None:
        return peer.done()
    try:
        for block in peer.client(SILENCE).whole("/0"):
            view = memoryview(block)
            while view:
                view = view[os.write(spec["pipe"], view) :]
    except Retry as error:
        raise Refused.of("transfer-interrupted", source=peer.node, address=peer.address, text=error.why) from None
