"""Loading an image into the engine: out of what the controller sends, or of what another node of the run serves.

An archive is loaded whole or not at all, so what breaks off is begun again.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import ImageAct, ImageAsk, ImageOrder
from sparkops.programs import docker, runner, users
from sparkops.programs.progress import Listener
from sparkops.programs.transfer import receive
from sparkops.worker.calls import Call, Refused
from sparkops.worker.images import pull
from sparkops.worker.images.pull import engine_error
from sparkops.worker.system.jobs import Job

TRIES = 3
PAUSE = 2.0
BLOCK = 1 << 20
MOST = 2
"""How much larger an archive may be than what the engine calls the image's size: each of its files has a header."""


def load_sent(call: Call, ask: ImageAsk, act: ImageAct) -> str:
    """Load the archive that the controller sends; what the engine calls it."""
    pull.room(act["size"], at=ask.get("at"))
    return _load(_counted(call, act["size"]), ask, call.stopping, {"Content-Length": str(act["size"])})


def load_served(job: Job, args: ImageOrder) -> str:
    """Load what the node of `args["peer"]` serves; what the engine calls it. Raises Refused."""
    pull.room(args["peer"]["size"], at=args.get("at"))
    for left in reversed(range(TRIES)):
        try:
            return _receive(job, args)
        except Refused as error:
            if error.id != "transfer-interrupted" or not left:
                raise
            job.progress("the transfer broke off and is begun again")
            time.sleep(PAUSE)
    raise AssertionError


def notify_done(args: ImageOrder) -> None:
    """Tell the serving node that this one needs no more."""
    spec = {"peer": args["peer"], "pipe": None}
    runner.run(receive.__name__, spec, Listener(), user=users.find(""))


def _receive(job: Job, args: ImageOrder) -> str:
    """One try: the program speaks with the other node as the user, and writes what comes into a pipe."""
    reading, writing = os.pipe()
    spec = {"peer": args["peer"], "pipe": writing}
    with ThreadPoolExecutor(1) as pool:
        owner = users.find("")
        program = pool.submit(runner.run, receive.__name__, spec, Listener(job), user=owner, descriptors=[writing])
        program.add_done_callback(lambda _: os.close(writing))
        with closing(reading):
            return _load(_arriving(job, reading, program, args), args, job.stopping, {})


def _arriving(job: Job, reading: int, program: "Future[object]", args: ImageOrder) -> Iterator[bytes]:
    """What comes through the pipe. Raises Refused where its end is not that of the archive."""
    peer, done = args["peer"], 0
    while block := os.read(reading, BLOCK):
        job.check()
        done += len(block)
        if done > MOST * (peer["size"] + BLOCK):
            raise Refused.of(
                "transfer-image-too-large",
                source=peer["node"],
                address=peer["address"],
                size=peer["size"],
                name=args["name"],
            )
        job.progress(f"receiving from {peer['node']} over {peer['address']}", done, max(peer["size"], done))
        yield block
    job.check()
    program.result()


def _load(body: Iterable[bytes], args: ImageAsk, stopping: threading.Event, headers: dict[str, str]) -> str:
    """The name or id that the engine gives what it loaded out of this archive."""
    text = ""
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
            text = str(line.get("stream", "")).strip() or text
    except docker.EngineError as error:
        raise engine_error(error.message, args) from None
    for head in ("Loaded image ID: ", "Loaded image: "):
        if text.startswith(head):
            return text.removeprefix(head)
    raise Refused.of("image-load-unreported", name=args["name"], text=text)


def _counted(call: Call, total: int) -> Iterator[bytes]:
    done = 0
    for chunk in call.receive():
        done += len(chunk)
        call.progress("loading", done, total)
        yield chunk
    if done != total:
        raise Refused.of("image-archive-incomplete", type="gone", done=done, total=total)
