"""Loading an image into the engine: out of what the controller sends, or of what another node of the run passes on.

An archive is loaded whole or not at all, so what breaks off is begun again.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sparkops.programs.fetch.http import Retry
from sparkops.programs.transfer.client import Peer
from sparkops.programs.transfer.serve_image import SILENCE
from sparkops.worker.calls import Call, Refused
from sparkops.worker.images import pull
from sparkops.worker.images.pull import engine_error
from sparkops.worker.system import docker
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.jobs import Job

TRIES = 3
PAUSE = 2.0
BLOCK = 1 << 20
MOST = 2
"""How much larger an archive may be than what the engine calls the image's size: each of its files has a header."""

State = dict[str, Any]


def sent(call: Call, ask: State, act: State) -> str:
    """Load the archive that the controller sends; what the engine calls it. `act["size"]` in bytes."""
    pull.room(act["size"], at=ask.get("at"))
    return _loaded(_counted(call, act["size"]), ask, call.stopping, {"Content-Length": str(act["size"])})


def passed(job: Job, args: State) -> str:
    """Load what the relay of `args["peer"]` saves; what the engine calls it. Raises Refused."""
    pull.room(args["peer"]["size"], at=args.get("at"))
    peer = Peer(args["peer"], [])
    for left in reversed(range(TRIES)):
        try:
            return _received(job, args, peer)
        except Refused as error:
            if error.type != "broken" or not left:
                raise
            job.progress(f"{error}; begun again")
            time.sleep(PAUSE)
    raise AssertionError


def good_bye(args: State) -> None:
    """Tell the relay that this node needs no more."""

    def work(say: rights.Report) -> State:
        Peer(args["peer"], []).done()
        return {}

    rights.run(rights.user(""), work, lambda message: None)


def _received(job: Job, args: State, peer: Peer) -> str:
    """One try: a child with the user's rights speaks with the other node, and writes what comes into a pipe."""
    reading, writing = os.pipe()

    def work(say: rights.Report) -> State:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(reading)
        try:
            for block in peer.client(SILENCE).whole("/0"):
                view = memoryview(block)
                while view:
                    view = view[os.write(writing, view) :]
        except Retry as error:
            raise Refused(str(error), "broken", hint=f"see to {peer.node} and the link, then run apply again") from None
        return {}

    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(rights.run, rights.user(""), work, lambda message: None)
        child.add_done_callback(lambda _: os.close(writing))
        try:
            return _loaded(
                _arriving(job, reading, child, peer, args["name"], args["peer"]["size"]), args, job.stopping, {}
            )
        finally:
            os.close(reading)


def _arriving(job: Job, reading: int, child: "Future[State]", peer: Peer, name: str, size: int) -> Iterator[bytes]:
    """What comes through the pipe. Raises Refused where its end is not that of the archive."""
    done = 0
    while block := os.read(reading, BLOCK):
        job.check()
        done += len(block)
        if done > MOST * (size + BLOCK):
            raise Refused(
                f"{peer.way} sends far more than the {size} bytes that it told of {name}",
                hint=f"look at {peer.node}: it passes on another image",
            )
        job.progress(f"receiving from {peer.way}", done, max(size, done))
        yield block
    job.check()
    child.result()


def _loaded(body: Iterable[bytes], args: State, stopping: Any, headers: dict[str, str]) -> str:
    """The name or id that the engine gives what it loaded out of this archive."""
    said = ""
    try:
        for line in docker.stream(
            "POST",
            "/images/load",
            body,
            query={"quiet": "1"},
            headers={"Content-Type": "application/x-tar", **headers},
            stopping=stopping,
            at=args.get("at"),
        ):
            said = str(line.get("stream", "")).strip() or said
    except docker.EngineError as error:
        raise engine_error(error.message, args) from None
    for head in ("Loaded image ID: ", "Loaded image: "):
        if said.startswith(head):
            return said.removeprefix(head)
    raise Refused.of("image-load-unreported", name=args["name"], text=said)


def _counted(call: Call, total: int) -> Iterator[bytes]:
    done = 0
    for chunk in call.receive():
        done += len(chunk)
        call.progress("loading", done, total)
        yield chunk
    if done != total:
        raise Refused.of("image-archive-incomplete", type="gone", done=done, total=total)
