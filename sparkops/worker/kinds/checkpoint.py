"""The `checkpoint` kind on the node: what a folder is proven to hold, and how it comes to hold what is declared.

Looking costs file stats only: the folder's record says what it should be, the verification index what was proven. All
hashing and fetching is a node job, whose dangerous part runs in a child with the owner's rights.

`ask` is `{folder, state_dir, owner, deep}`; `act` is `{manifest (canonical text), digest, mode, adopt, hub, manner}`
with mode `fetch` (from the hub, or from another node: `peer`) or `staged` (all was pushed), and `again` to trust no
earlier proof.
"""

import json
import os
import stat
import time
from typing import Any

from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints import verify as proof
from sparkops.programs.checkpoints.folder import RECORD, Place, record_of
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights

VOLATILE = frozenset({"hashed"})

State = dict[str, Any]


def observe(ask: dict[str, Any]) -> State | None:
    """What the folder is proven to hold; None where there is none."""
    return proof.seen(ask, _told)


def _told(digest: str, record: State, index: hashes.Index) -> State:
    """What the record says of itself."""
    return {
        "manifest": digest,
        "repository": record.get("repository", ""),
        "commit": record.get("commit", ""),
        "size": sum(size for _, size, _ in record.get("files", [])),
    }


def converge(call: Call, ask: State, found: State | None, want: State | None, act: State) -> None:
    """Bring the folder to hold the manifest of `act`; `want` None removes it. Raises Refused."""
    place = Place(ask["folder"])
    if want is None:
        if found is not None:
            proof.retire(place, ask["state_dir"])
        return
    said = _bring(call, ask, act, act["mode"])
    for note in said.get("notes", []):
        call.progress(notice=f"checkpoint {place.folder}: {note}")


def _bring(call: Call, ask: State, act: State, mode: str) -> State:
    order = {"ask": ask, "act": {**act, "mode": mode}}
    key = f"checkpoint {ask['folder']}"
    return dict(jobs.run(call, key, __name__, "bring", order, attach=_word(act, mode)))


def _word(act: State, mode: str) -> str:
    return f"{mode} {act['digest']}{' again' if act.get('again') else ''}"


def running(call: Call, args: State) -> bool:
    """Whether the job that `converge` would start runs already: `{ask, act}`."""
    return jobs.attachable(f"checkpoint {args['ask']['folder']}", _word(args["act"], args["act"]["mode"]))


def bring(job: jobs.Job, args: State) -> State:
    """The job: everything up to the published folder; returns the child's notes, in mode `look` what is missing."""
    ask, act = args["ask"], args["act"]
    if act.get("attached"):
        raise Refused("the job that received it ended just now", "stale", hint="run apply again")
    place = Place(ask["folder"])
    existing = place.open()
    who = proof.who_of(ask["owner"], existing)
    index = hashes.Index(ask["state_dir"], place.folder)
    if existing is not None:
        proof.hand_over(existing, who, index)
    os.makedirs(ask["state_dir"], mode=0o700, exist_ok=True)
    staging = place.stage(who)
    order = _order(place, existing, act, index, bool(ask.get("deep")))
    index.record = ""

    from sparkops.programs.fetch.fetch_job import Bringing  # acts only: a look does not pay for it

    def work(say: rights.Report) -> State:
        os.fchdir(staging)
        return Bringing(order, existing, say, job.check).work()

    with proof.our_links(ask["state_dir"], *([] if existing is None else [existing])):
        try:
            done = rights.run(who, work, proof.hearing(job, index))
        finally:
            if index.entries:
                index.save()
        if "missing" not in done:
            proof.finish(place, staging, existing, done, order, index)
    return done


def _order(place: Place, existing: int | None, act: State, index: hashes.Index, deep: bool) -> State:
    manifest = json.loads(act["manifest"])
    previous = [path for path, _, _ in record_of(existing)[1].get("files", [])] if existing is not None else []
    limit = time.time() if act.get("again") else time.time() - proof.DEEP_AFTER if deep else 0.0
    return {
        "folder": place.folder,
        "files": manifest["files"],
        "repository": manifest["repository"],
        "commit": manifest["commit"],
        "record": act["manifest"],
        "previous": previous,
        "known": {mark: oid for mark, (oid, at) in index.entries.items() if at >= limit},
        "prefixes": index.prefixes(),
        "mode": act["mode"],
        "adopt": act["adopt"],
        "hub": {**act["hub"], "repository": manifest["repository"], "commit": manifest["commit"]},
        "peer": act.get("peer"),
        "manner": act["manner"],
    }


def put(call: Call, args: State) -> int:
    """Take a pushed content: `folder`, `oid`, `size`, `offset`; returns the bytes that are there."""
    from sparkops.programs.fetch import download  # acts only: a look does not pay for it

    place = Place(args["folder"])
    oid, size, offset = str(args["oid"]), int(args["size"]), int(args["offset"])
    name = oid.replace(":", "-") + ".pushed"
    if not name.replace("-", "").replace(".", "").isalnum():
        raise Refused(f"no content is called {oid!r}")
    handle = _pushed(place, name)
    try:
        if os.fstat(handle).st_size < offset:
            raise Refused("the pushed part became shorter", "stale")
        os.ftruncate(handle, offset)
        position = offset
        for chunk in call.receive():
            if position + len(chunk) > size:
                raise Refused(f"more than the {size} bytes of the manifest were sent for {oid}")
            try:
                position += _write(handle, chunk, position)
            except OSError as error:
                raise download.full_disk(error, place.folder, handle) or error from None
            call.progress(done=position, total=size)
            if position % (64 << 20) < len(chunk):
                os.fdatasync(handle)
                hashes.drop_cache(handle, 0, position)
        return position
    finally:
        os.close(handle)


def _pushed(place: Place, name: str) -> int:
    """The file for a pushed content, as the staging folder's owner; no link is followed on the way."""
    from sparkops.programs.fetch.partial_file import STORE  # acts only: a look does not pay for it

    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(place.beside(place.partial), flags)
    owner = os.fstat(at)
    for part in STORE.split("/"):
        inner = os.open(part, flags, dir_fd=at)
        os.close(at)
        at = inner
    try:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=at)
    finally:
        os.close(at)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(handle)
        raise Refused(f"{name} in the staging folder is not a file of its own", hint="remove the staging folder")
    if os.getuid() == 0:
        os.fchown(handle, owner.st_uid, owner.st_gid)
    return handle


def _write(handle: int, data: bytes, position: int) -> int:
    view = memoryview(data)
    while view:
        wrote = os.pwrite(handle, view, position)
        view, position = view[wrote:], position + wrote
    return len(data)


def look(call: Call, args: State) -> State:
    """What has to be pushed: `{missing: [[path, size, oid, bytes there]], notes}`; adopts and proves what is there."""
    return _bring(call, args["ask"], args["act"], "look")


def verify(call: Call, args: State) -> State:
    """Hash what a folder holds against its own record, `again` also what was proven: `{folder, state_dir, again}`.

    Where nothing has to be read there is no job: this costs file stats only.
    """
    started = time.time()
    if not args["again"] and (done := _unchanged(args)) is not None:
        return {**done, "seconds": time.time() - started}
    word = "verify again" if args["again"] else "verify"
    return dict(jobs.run(call, f"checkpoint {args['folder']}", __name__, "prove", args, attach=word))


def _unchanged(args: State) -> State | None:
    """The answer of `prove` for a folder that is proven as it stands; None for any other."""
    existing = Place(args["folder"]).open()
    if existing is None:
        return None
    try:
        digest, record = record_of(existing)
        files = record.get("files", [])
        index = hashes.Index(args["state_dir"], args["folder"])
        found = proof.held(existing, files, index, deep=False)
    finally:
        os.close(existing)
    if not found["hashed"] or index.record not in ("", digest):
        return None
    told: State = {**{key: record[key] for key in ("repository", "commit")}, **proof.made_of(record)}
    told |= {"files": len(files), "size": sum(size for _, size, _ in files), "hashed": 0, "missing": [], "wrong": []}
    return {**told, "manifest": digest, "hashed_at": found["hashed"]}


def prove(job: jobs.Job, args: State) -> State:
    """The job of `verify`: notes what was read in the index and changes nothing else."""
    place = Place(args["folder"])
    existing = place.open()
    if existing is None:
        raise Refused(f"{place.folder} is not there", hint="sparkops apply brings it")
    digest, record = record_of(existing)
    if not digest:
        raise Refused(f"{place.folder} has no record of sparkops", hint="sparkops apply, or adopt, takes it over")
    index = hashes.Index(args["state_dir"], place.folder)
    known = {} if args["again"] else {mark: oid for mark, (oid, _) in index.entries.items()}
    order = {"folder": place.folder, "files": record["files"], "known": known, "adopt": [], "mode": "prove"}
    started = time.time()

    from sparkops.programs.fetch.fetch_job import Bringing  # acts only: a look does not pay for it

    def work(say: rights.Report) -> State:
        return Bringing(order, existing, say, job.check).proven()

    try:
        done = rights.run(proof.who_of("", existing), work, proof.hearing(job, index))
    finally:
        index.save(keep={hashes.identity(status) for _, status in proof.walk(existing)})
    if index.record and digest != index.record:
        done["wrong"].append(RECORD)
    what = {**{key: record.get(key, "") for key in ("repository", "commit")}, **proof.made_of(record)}
    hashed_at = proof.held(existing, record["files"], index, deep=False)["hashed"]
    return {**done, **what, "manifest": digest, "hashed_at": hashed_at, "seconds": time.time() - started}


def relay(call: Call, args: State) -> State:
    """Start the server of a checkpoint's files: what `transfer.serve_files` takes and returns."""
    from sparkops.worker.requests import transfer  # acts only: an observation does not need it

    return transfer.serve_files(args)


JOBS = {"bring": bring, "prove": prove}
CALLS = {
    "put": put,
    "look": look,
    "verify": verify,
    "running": running,
    "relay": relay,
}
