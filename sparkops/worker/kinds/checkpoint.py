"""The `checkpoint` kind on the node: what a folder is verified to hold, and how it comes to hold what is declared.

Observing costs file statuses only: the folder's record says what it should be, the verification index what was
verified. All hashing and fetching is a node job that runs the fetch program as the owner.

`ask` is `{folder, state_dir, owner, deep}`; `act` is `{manifest (canonical text), digest, mode, adopt, hub, manner}`
with mode `fetch` (from the hub, or from another node: `peer`) or `staged` (all was pushed), and `again` to trust no
earlier proof.
"""

import os
import stat
import time
from typing import TYPE_CHECKING, Any

from sparkops.core.descriptors import FOLDER, closing, write
from sparkops.core.kind_messages import FilesServe, RunningRequest
from sparkops.core.messages import Fields, Refused
from sparkops.programs.checkpoints import verify as verification
from sparkops.programs.checkpoints.folder import CheckpointFolder
from sparkops.programs.checkpoints.index import Index
from sparkops.worker.calls import Call
from sparkops.worker.system import jobs

if TYPE_CHECKING:
    from sparkops.core.request_messages import ItemTold
    from sparkops.worker.reclaiming.items import Look

State = dict[str, Any]
FETCH = "sparkops.programs.fetch.caller"
"""What its jobs run; an observation does not load it."""


def observe(ask: State) -> State | None:
    """What the folder is verified to hold; None where there is none."""
    return verification.observe(ask, _describe)


def _describe(digest: str, record: State, index: Index) -> State:
    return {
        "manifest": digest,
        "repository": record.get("repository", ""),
        "commit": record.get("commit", ""),
        "size": sum(size for _, size, _ in record.get("files", [])),
    }


def converge(call: Call, ask: State, found: State | None, want: State | None, act: State) -> None:
    """Bring the folder to hold the manifest of `act`; `want` None removes it. Raises Refused."""
    if want is not None:
        _bring(call, ask, act)
    elif found is not None:
        from sparkops.programs.checkpoints import publish  # acts only: an observation does not load it

        publish.retire(CheckpointFolder(ask["folder"]), ask["state_dir"])


def reclaimable(look: "Look") -> list["ItemTold"]:
    """Folders that can be given back, also those that were built."""
    from sparkops.worker.reclaiming import checkpoints  # gc only: an observation does not load it

    return checkpoints.reclaimable(look)


def reclaim(state_dir: str, given: "ItemTold") -> None:
    """Remove one of them. Raises Refused, OSError."""
    from sparkops.worker.reclaiming import checkpoints

    checkpoints.reclaim(state_dir, given)


def _bring(call: Call, ask: State, act: State) -> State:
    args = {"query": ask, "request": act}
    done = jobs.run(call, _key(ask), FETCH, "fetch", args, attach=_attach(act), source=_source(act))
    for id, args in done["notices"]:
        call.progress(notice={"id": id, "args": args})
    return dict(done)


def _key(ask: Fields) -> str:
    return f"checkpoint {ask['folder']}"


def _attach(act: Fields) -> str:
    return f"{act['mode']} {act['digest']}{' again' if act.get('again') else ''}"


def _source(act: State) -> str:
    """The hub that it is fetched from; "" where that is not said, or another node is the source."""
    asks_hub = act["mode"] == "fetch" and not (act.get("peer") or act.get("attached"))
    return str(act["hub"]["endpoint"]) if asks_hub else ""


def running(call: Call, args: RunningRequest) -> bool:
    """Whether the job that `converge` would start runs already."""
    return jobs.attachable(_key(args["ask"]), _attach(args["act"]))


def missing(call: Call, args: State) -> list[list[object]]:
    """What has to be pushed: `[[path, size, oid, bytes pushed]]`; adopts and verifies what is there."""
    return list(_bring(call, args["ask"], {**args["act"], "mode": "list"})["missing"])


def put(call: Call, args: State) -> int:
    """Take a pushed content: `folder`, `oid`, `size`, `offset`; returns the bytes that are there."""
    from sparkops.programs import disk  # acts only: an observation does not load it
    from sparkops.programs.checkpoints.hashes import drop_cache

    place = CheckpointFolder(args["folder"])
    oid, size, offset = str(args["oid"]), int(args["size"]), int(args["offset"])
    name = oid.replace(":", "-") + ".pushed"
    if not name.replace("-", "").replace(".", "").isalnum():
        raise Refused.of("content-name-invalid", oid=oid)
    with closing(_pushed(place, name)) as handle:
        if os.fstat(handle).st_size < offset:
            raise Refused.of("pushed-part-shorter", type="stale", folder=place.path)
        os.ftruncate(handle, offset)
        position = offset
        for chunk in call.receive():
            if position + len(chunk) > size:
                raise Refused.of("pushed-part-too-long", folder=place.path, oid=oid, size=size)
            try:
                write(handle, chunk, position)
            except OSError as error:
                raise disk.full(error, place.path) from None
            position += len(chunk)
            call.progress(done=position, total=size)
            if position % (64 << 20) < len(chunk):
                os.fdatasync(handle)
                drop_cache(handle, 0, position)
        return position


def _pushed(place: CheckpointFolder, name: str) -> int:
    """The file for a pushed content, as the staging folder's owner; no link is followed on the way."""
    from sparkops.programs.fetch.partial_file import STORE, open_store  # acts only: an observation does not load it

    with closing(os.open(place.beside(place.partial), FOLDER)) as staging:
        owner, store = os.fstat(staging), open_store(staging)
    with closing(store) as at:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=at)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(handle)
        raise Refused.of("staging-not-ours", path=os.path.join(place.beside(place.partial), STORE, name))
    if os.getuid() == 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)
    return handle


def verify(call: Call, args: State) -> State:
    """Hash what a folder holds against its own record, `again` also what was verified: `{folder, state_dir, again}`.

    Where nothing has to be read there is no job: this costs file statuses only.
    """
    from sparkops.programs.fetch import caller  # acts only: an observation does not load it

    started = time.time()
    if not args["again"] and (done := caller.unchanged(args["folder"], args["state_dir"])) is not None:
        return {**done, "seconds": time.time() - started}
    given = {key: args[key] for key in ("folder", "state_dir", "again")}
    attach = "verify again" if args["again"] else "verify"
    return dict(jobs.run(call, _key(args), FETCH, "verify_folder", given, attach=attach))


def relay(call: Call, args: FilesServe) -> dict[str, int]:
    """Start the server of a checkpoint's files."""
    from sparkops.worker.requests import transfer  # acts only: an observation does not load it

    return transfer.serve(args["folder"], "files", args)


CALLS = {"put": put, "missing": missing, "verify": verify, "running": running, "relay": relay}
