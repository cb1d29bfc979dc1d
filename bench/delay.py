"""`python -m bench.delay MS PORT …`: a TCP proxy for each port of 127.0.0.1 that makes each round trip MS longer.

Prints its ports as one JSON list. Each direction is held back by half of MS; what opens a connection also waits for the
round trip that a TCP handshake over such a way takes, which the kernel here does at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable


async def main(seconds: float, ports: list[int]) -> None:
    """Serve until killed; `seconds` are those of a round trip."""
    servers = [await asyncio.start_server(_relay(seconds, each), "127.0.0.1", 0, backlog=512) for each in ports]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.Event().wait()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _relay(seconds: float, port: int) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_pipe(reader, far_writer, seconds / 2), _pipe(far_reader, writer, seconds / 2))

    return serve


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """What comes in goes out `seconds` later, in its order, however much is on the way."""
    loop = asyncio.get_running_loop()
    last = loop.time()
    try:
        while part := await reader.read(1 << 16):
            last = loop.time() + seconds
            loop.call_at(last, writer.write, part)
    except ConnectionError:
        pass
    await asyncio.sleep(last - loop.time() + 0.001)
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) / 1000, [int(port) for port in sys.argv[2:]]))
