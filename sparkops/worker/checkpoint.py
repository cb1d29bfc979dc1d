"""The `checkpoint` kind on the node: what a folder is proven to hold, and how it comes to hold what is declared.

Looking costs file stats only: the folder's record says what it should be, the verification index what was proven. All
hashing and fetching is a node job, whose dangerous part runs in a child with the owner's rights.

`ask` is `{folder, state_dir, owner, deep}`; `act` is `{manifest (canonical text), digest, mode, adopt, hub, manner}`
with mode `fetch` (from the hub, or from another node: `peer`) or `staged` (all was pushed), and `again` to trust no
earlier proof.
"""

import json
import os
import pwd
import stat
import time
from typing import Any

from sparkops.worker import checkpoint_rights as rights
from sparkops.worker import fetching, jobs, passing, receiving, verifying
from sparkops.worker.calls import Call, Refused, Unknown
from sparkops.worker.checkpoint_bringing import Bringing
from sparkops.worker.checkpoint_place import Place, hand_over, record_of
from sparkops.worker.fetching_content import STORE

SHOWN = 20
"""Paths that a list in a state shows at most."""
DEEP_AFTER = 86400.0
"""Seconds after which `deep` no longer trusts a proof."""

VOLATILE = frozenset({"hashed"})

State = dict[str, Any]


def observe(ask: dict[str, Any]) -> State | None:
    """What the folder is proven to hold; None where there is none."""
    place = Place(ask["folder"])
    try:
        handle = place.open()
    except Refused as error:
        raise Unknown(str(error)) from None
    if handle is None:
        return None
    try:
        digest, record = record_of(handle)
        index = verifying.Index(ask["state_dir"], place.folder)
        return {
            "manifest": digest,
            "repository": record.get("repository", ""),
            "commit": record.get("commit", ""),
            "size": sum(size for _, size, _ in record.get("files", [])),
            "owner": _owner(os.fstat(handle).st_uid),
            "leftover": place.leftover(),
            **_files(handle, record.get("files", []), index, bool(ask.get("deep"))),
        }
    finally:
        os.close(handle)


def _files(handle: int, files: list[tuple[str, int, str]], index: verifying.Index, deep: bool) -> State:
    lists: dict[str, list[str]] = {"missing": [], "wrong": [], "unverified": []}
    oldest = time.time()
    limit = oldest - DEEP_AFTER if deep else 0.0
    for path, size, oid in files:
        try:
            status = os.stat(path, dir_fd=handle, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            lists["missing"].append(path)
            continue
        known = index.find(status)
        if status.st_size != size or not stat.S_ISREG(status.st_mode) or (known is not None and known[0] != oid):
            lists["wrong"].append(path)
        elif known is None or known[1] < limit:
            lists["unverified"].append(path)
        else:
            oldest = min(oldest, known[1])
    proven = files and not any(lists.values())
    day = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(oldest)) if proven else ""
    return {**{key: _short(paths) for key, paths in lists.items()}, "hashed": day}


def _short(paths: list[str]) -> list[str]:
    more = len(paths) - SHOWN
    return [*paths[:SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def converge(call: Call, ask: State, found: State | None, want: State | None, act: State) -> None:
    """Bring the folder to hold the manifest of `act`; `want` None removes it. Raises Refused."""
    place = Place(ask["folder"])
    if want is None:
        if found is not None:
            _retire(place, ask)
        return
    said = _bring(call, ask, act, act["mode"])
    for note in said.get("notes", []):
        call.progress(note)


def _retire(place: Place, ask: State) -> None:
    handle = place.open()
    if handle is None:
        return
    digest, _ = record_of(handle)
    os.close(handle)
    if not digest:
        raise Refused(f"{place.folder} has no record of sparkops", hint="look into it and remove it by hand")
    place.retire()
    verifying.Index(ask["state_dir"], place.folder).forget()


def _bring(call: Call, ask: State, act: State, mode: str) -> State:
    order = {"ask": ask, "act": {**act, "mode": mode}}
    key = f"checkpoint {ask['folder']}"
    return dict(jobs.run(call, key, "checkpoint", "bring", order, attach=_word(act, mode)))


def _word(act: State, mode: str) -> str:
    return f"{mode} {act['digest']}{' again' if act.get('again') else ''}"


def running(call: Call, args: State) -> bool:
    """Whether the job that `converge` would start runs already: `{folder, act}`."""
    return jobs.attachable(f"checkpoint {args['folder']}", _word(args["act"], args["act"]["mode"]))


def bring(job: jobs.Job, args: State) -> State:
    """The job: everything up to the published folder; returns the child's notes, in mode `look` what is missing."""
    ask, act = args["ask"], args["act"]
    if act.get("attached"):
        raise Refused("the job that received it ended just now", "stale", hint="run apply again")
    place = Place(ask["folder"])
    existing = place.open()
    who = rights.owner_of(ask["owner"], existing)
    index = verifying.Index(ask["state_dir"], place.folder)
    if existing is not None:
        _hand_over(existing, who, index)
    os.makedirs(ask["state_dir"], mode=0o700, exist_ok=True)
    staging = place.stage(who)
    order = _order(place, existing, act, index, bool(ask.get("deep")))

    def work(say: rights.Report) -> State:
        os.fchdir(staging)
        return Bringing(order, existing, say, job.check).work()

    try:
        done = rights.run(who, work, hearing(job, index))
    finally:
        if index.entries:
            index.save()
    if "missing" not in done:
        _finish(place, staging, existing, done, order, index)
    return done


def _hand_over(existing: int, who: pwd.struct_passwd, index: verifying.Index) -> None:
    """The folder becomes the owner's; what was proven stays proven where only the owner changed."""
    if os.fstat(existing).st_uid == who.pw_uid:
        return
    before = dict(_walk(existing))
    hand_over(existing, who)
    for path, status in _walk(existing):
        known = index.find(before[path]) if path in before else None
        if known is not None and verifying.lasting(before[path]) == verifying.lasting(status):
            index.note(verifying.identity(status), *known)


def _walk(handle: int) -> list[tuple[str, os.stat_result]]:
    return [
        (os.path.join(folder, name), os.stat(name, dir_fd=at, follow_symlinks=False))
        for folder, _, files, at in os.fwalk(".", dir_fd=handle, follow_symlinks=False)
        for name in files
    ]


def _order(place: Place, existing: int | None, act: State, index: verifying.Index, deep: bool) -> State:
    manifest = json.loads(act["manifest"])
    previous = [path for path, _, _ in record_of(existing)[1].get("files", [])] if existing is not None else []
    limit = time.time() if act.get("again") else time.time() - DEEP_AFTER if deep else 0.0
    return {
        "folder": place.folder,
        "files": manifest["files"],
        "repository": manifest["repository"],
        "commit": manifest["commit"],
        "record": act["manifest"],
        "previous": previous,
        "known": {mark: oid for mark, (oid, at) in index.entries.items() if at >= limit},
        "mode": act["mode"],
        "adopt": act["adopt"],
        "hub": {**act["hub"], "repository": manifest["repository"], "commit": manifest["commit"]},
        "peer": act.get("peer"),
        "manner": act["manner"],
    }


def _finish(
    place: Place, staging: int, existing: int | None, done: State, order: State, index: verifying.Index
) -> None:
    """Note what was proven, publish, sweep. The note comes first: a crash in between costs no second hashing."""
    if "staged" in done:
        read = dict(sorted(index.entries.values(), key=lambda entry: entry[1]))
        proven = {}
        for path, _, oid in order["files"]:
            status = os.stat(path, dir_fd=staging, follow_symlinks=False)
            if verifying.identity(status) == done["staged"].get(path):
                proven[path] = verifying.lasting(status)
                index.note(verifying.identity(status), oid, read.get(oid))
        index.save()
        place.publish(staging)
        place.sweep()
        _note_again(staging, order["files"], proven, read, index)
    else:
        assert existing is not None
        place.sweep()
        index.save(keep={verifying.identity(status) for _, status in _walk(existing)})


def _note_again(folder: int, files: list[Any], proven: dict[str, str], read: dict[str, float], index: Any) -> None:
    """Taking a file's other name away with the old folder moved its ctime; our own act unproves nothing."""
    kept = set()
    for path, _, oid in files:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        if proven.get(path) == verifying.lasting(status):
            index.note(verifying.identity(status), oid, read.get(oid))
            kept.add(verifying.identity(status))
    index.save(keep=kept)


def put(call: Call, args: State) -> int:
    """Take a pushed content: `folder`, `oid`, `size`, `offset`; returns the bytes that are there."""
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
                raise fetching.full_disk(error, place.folder, handle) or error from None
            call.progress(done=position, total=size)
            if position % (64 << 20) < len(chunk):
                os.fdatasync(handle)
                verifying.drop_cache(handle, 0, position)
        return position
    finally:
        os.close(handle)


def _pushed(place: Place, name: str) -> int:
    """The file for a pushed content, as the staging folder's owner; no link is followed on the way."""
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
    """Hash what a folder holds against its own record, `again` also what was proven: `{folder, state_dir, again}`."""
    word = "verify again" if args["again"] else "verify"
    return dict(jobs.run(call, f"checkpoint {args['folder']}", "checkpoint", "prove", args, attach=word))


def prove(job: jobs.Job, args: State) -> State:
    """The job of `verify`: notes what was read in the index and changes nothing else."""
    place = Place(args["folder"])
    existing = place.open()
    if existing is None:
        raise Refused(f"{place.folder} is not there", hint="sparkops apply brings it")
    digest, record = record_of(existing)
    if not digest:
        raise Refused(f"{place.folder} has no record of sparkops", hint="sparkops apply, or adopt, takes it over")
    index = verifying.Index(args["state_dir"], place.folder)
    known = {} if args["again"] else {mark: oid for mark, (oid, _) in index.entries.items()}
    order = {"folder": place.folder, "files": record["files"], "known": known, "adopt": [], "mode": "prove"}
    started = time.time()

    def work(say: rights.Report) -> State:
        return Bringing(order, existing, say, job.check).proven()

    try:
        done = rights.run(rights.owner_of("", existing), work, hearing(job, index))
    finally:
        index.save(keep={verifying.identity(status) for _, status in _walk(existing)})
    what = {key: record.get(key, "") for key in ("repository", "commit")}
    return {**done, **what, "manifest": digest, "seconds": time.time() - started}


def hearing(job: jobs.Job, index: verifying.Index) -> rights.Report:
    """What the child tells: its progress goes to the job, what it hashed into the index."""

    def hear(message: State) -> None:
        if isinstance(message.get("progress"), dict):
            job.progress(**{key: message["progress"].get(key) for key in ("text", "done", "total")})
        if isinstance(message.get("hashed"), list):
            mark, oid = message["hashed"]
            index.note(str(mark), str(oid))

    return hear


JOBS = {"bring": bring, "prove": prove}
CALLS = {
    "put": put,
    "look": look,
    "verify": verify,
    "running": running,
    "relay": passing.begin,
    "reach": receiving.reach,
}
