"""Serving content to other nodes of a run, as jobs: what needs root's rights around the program `transfer`.

The program runs as the content's owner and listens on one address. What only root may open or know it asks for here:
the folders and proofs of a checkpoint, and the engine's save of an image.
"""

import contextlib
import ipaddress
import os
import pwd
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping

from sparkops.core import frames
from sparkops.core.descriptors import FOLDER, closing
from sparkops.core.kind_messages import FilesServe, ImageOrder, Place, ServeOrder
from sparkops.programs import docker, runner, users
from sparkops.programs.checkpoints.folder import CheckpointFolder
from sparkops.programs.checkpoints.index import Index
from sparkops.programs.checkpoints.proof import identity
from sparkops.programs.progress import Listener
from sparkops.programs.transfer import main as program
from sparkops.programs.transfer.served_image import SILENCE
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import jobs

REACH = 5.0
"""Seconds in which a server has to answer when it is tried."""
START = 20.0
BACKLOG = 64


def serve(key: str, content: str, args: "FilesServe | ImageOrder") -> dict[str, int]:
    """Start the server of a checkpoint's `files` or of an `image`, or find it running.

    Raises `transfer-listen-failed`, `address`.
    """
    order = args["serve"]
    name = f"relay {key} at {order['address']} for {order['fingerprint']}"
    folder = jobs.begin(name, __name__, content, {"args": args})
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        alive, port = jobs.alive(folder), jobs.last_progress(folder).get("port")
        if alive and port and _listens(order["address"], port):
            return {"port": port}
        if not alive:
            jobs.outcome(folder)
            folder = jobs.begin(
                name, __name__, content, {"args": args}
            )  # the one that ran had just served its last receiver
        time.sleep(0.05)
    raise Refused.of("transfer-server-slow", seconds=START)


def _listens(address: str, port: int) -> bool:
    """Whether the server takes connections; from its last receiver's end on it takes none."""
    try:
        socket.create_connection((address, port), START).close()
    except OSError:
        return False
    return True


def files(job: jobs.Job, args: FilesServe) -> dict[str, object]:
    place = CheckpointFolder(args["folder"])
    existing = place.open()
    owner = users.owner_of(args["owner"], existing)
    if existing is not None:
        os.close(existing)
    work = job.beside(f"checkpoint {place.path}")
    spec: program.Spec = {"content": "files", "files": args["files"], "quiet": args["serve"]["quiet"]}
    return _serve(job, args["serve"], owner, spec, lambda channel: _send_folders(channel, place, args, work))


def image(job: jobs.Job, args: ImageOrder) -> dict[str, object]:
    spec: program.Spec = {"content": "image", "size": args["size"]}
    return _serve(job, args["serve"], users.find(""), spec, lambda channel: _send_pipe(channel, args))


def _serve(
    job: jobs.Job,
    order: ServeOrder,
    owner: pwd.struct_passwd,
    content: program.Spec,
    answer: Callable[[socket.socket], None],
) -> dict[str, object]:
    """Listen, and run the program; `answer` is called for each of its questions."""
    ours, theirs = socket.socketpair()
    with _listen(order["address"]) as listener, ours, theirs:
        port = listener.getsockname()[1]
        job.always["port"] = port
        job.progress("waiting for receivers")
        threading.Thread(target=_answer_all, args=(ours, answer), daemon=True).start()
        spec: program.Spec = {
            **content,
            "credentials": order["credentials"],
            "receivers": order["receivers"],
            "idle": order["idle"],
            "seconds": order["seconds"],
            "listener": listener.fileno(),
            "channel": theirs.fileno(),
        }
        descriptors = [listener.fileno(), theirs.fileno()]
        return dict(runner.run(program.__name__, spec, _Listener(job), user=owner, descriptors=descriptors))


class _Listener(Listener):
    """The program's notices go to the job's log, which is root's."""

    def notice(self, id: str, args: Mapping[str, object]) -> None:
        print(id, " ".join(f"{key}={value}" for key, value in args.items()), file=sys.stderr, flush=True)


def _listen(address: str) -> socket.socket:
    """A listener on this one address, on a port that is free."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
    except OSError as error:
        listener.close()
        raise Refused.of("transfer-listen-failed", type="address", address=address, text=error.strerror) from None
    listener.listen(BACKLOG)
    return listener


def _answer_all(channel: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    """Answer the program's questions until it ends. An error closes the channel, which the program sees."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as end:
        end.callback(channel.shutdown, socket.SHUT_RDWR)
        while channel.recv(1):
            answer(channel)


def _send_folders(channel: socket.socket, place: CheckpointFolder, args: FilesServe, work: str) -> None:
    """What `ServedFiles` asks for; `work` is the folder of the checkpoint's own job."""
    published = place.open()
    staging = _open_or_none(place.beside(place.partial))
    proven: dict[str, str] = {}
    if published is not None:
        index = Index(args["state_dir"], place.path)
        for path, size, oid in args["files"]:
            with contextlib.suppress(OSError):
                status = os.stat(path, dir_fd=published, follow_symlinks=False)
                known = index.find(status)
                if known is not None and known[0] == oid and status.st_size == size:
                    proven[path] = identity(status)
    state = {
        "proven": proven,
        "published": published is not None,
        "working": jobs.alive(work),
        "error": jobs.failure(work),
        "text": str(jobs.last_progress(work).get("text") or ""),
    }
    handles = [each for each in (published, staging) if each is not None]
    try:
        socket.send_fds(channel, [b"\n"], handles)
        channel.sendall(frames.encode(state))
    finally:
        for handle in handles:
            os.close(handle)


def _open_or_none(path: str) -> int | None:
    try:
        return os.open(path, FOLDER)
    except OSError:
        return None


def _send_pipe(channel: socket.socket, args: ImageOrder) -> None:
    """What `ServedImage` asks for: a save begins, and its archive comes out of the pipe."""
    reading, writing = os.pipe()
    threading.Thread(target=_save, args=(writing, args), daemon=True).start()
    with closing(reading):
        socket.send_fds(channel, [b"\n"], [reading])


def _save(handle: int, args: ImageOrder) -> None:
    """The archive in HTTP's chunks; the last one only where the engine came to its end."""
    try:
        with open(handle, "wb") as pipe:
            for block in docker.content(f"/images/{docker.quoted(args['image'])}/get", SILENCE, at=args.get("at")):
                pipe.write(b"%x\r\n" % len(block) + block + b"\r\n")
            pipe.write(b"0\r\n\r\n")
    except (OSError, Refused) as error:
        print(f"{args['name']}: {error}", file=sys.stderr, flush=True)


def reach(call: Call, args: Place) -> None:
    """Try whether the server there can be reached from here. Raises Refused, type `address`."""
    try:
        socket.create_connection((args["address"], args["port"]), REACH).close()
    except OSError as error:
        raise Refused.of(
            "transfer-source-unreachable",
            type="address",
            source=args["node"],
            address=args["address"],
            text=error.strerror or str(error),
        ) from None


CALLS = {"reach": reach}
