"""The `built_checkpoint` kind on the node: a folder that is built out of a base folder and tensors of donors.

Looking costs file stats only, as for `checkpoint`. What the record says of its making counts only while the record is
the very text that a job of ours published: its digest stands in the verification index, which is not the owner's.

`ask` is `{folder, state_dir, owner, deep, base}`; `act` is `{identity, base: {manifest, files}, donors, steps, record,
again, manner}`; with `peer` and `files` it is received from a node that has built it. A damaged file is built anew
alone: the steps make the same bytes, and what is right is linked over.
"""

import contextlib
import hashlib
import json
import os
import pwd
from typing import TYPE_CHECKING, Any

from sparkops.programs import atomic, users
from sparkops.programs.checkpoints import publish
from sparkops.programs.checkpoints import verify as proof
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index, IndexListener, lasting, preserved
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights

if TYPE_CHECKING:
    from sparkops.programs.fetch.existing import ExistingFolder

State = dict[str, Any]
Files = list[list[Any]]


def observe(ask: State) -> State | None:
    """What the folder is proven to hold, and of what it was built; None where there is none."""
    return proof.observe(ask, _told)


def _told(digest: str, record: State, index: Index) -> State:
    built = record.get("built", {}) if digest and digest == index.record else {}
    return {
        "identity": str(built.get("identity", "")),
        "repository": record.get("repository", "") if built else "",
        "commit": record.get("commit", "") if built else "",
        **proof.sources_of(record if built else {}),
        "size": sum(size for _, size, _ in record.get("files", [])),
    }


def converge(call: Call, ask: State, found: State | None, want: State | None, act: State) -> None:
    """Build the folder that `act` declares; `want` None removes it. Raises Refused."""
    place = CheckpointFolder(ask["folder"])
    if want is None:
        from sparkops.programs.quantize import quantize  # acts only: a look does not pay for it

        quantize.discard(place.beside(place.quantized))
        if found is not None:
            publish.retire(place, ask["state_dir"])
        return
    said = jobs.run(call, f"checkpoint {ask['folder']}", __name__, "build", {"ask": ask, "act": act}, attach=_word(act))
    for note in said.get("notes", []):
        call.progress(notice=f"checkpoint {place.path}: {note}")
    for id, args in said.get("notices", []):
        call.progress(notice={"id": id, "args": args})


def _word(act: State) -> str:
    return f"build {act['identity']}{' again' if act.get('again') else ''}"


def running(call: Call, args: State) -> bool:
    """Whether a job that builds or receives this one runs already: `{ask, act}`."""
    return jobs.attachable(f"checkpoint {args['ask']['folder']}", _word(args["act"]))


def relay(call: Call, args: State) -> State:
    """Start the server of a built one (`{folder, state_dir, owner, identity}` and what `transfer.serve_files` takes).

    Returns `{port, files}`: nobody else knows what it consists of. Raises Refused where it is not the one.
    """
    from sparkops.worker.requests import transfer  # acts only: an observation does not need it

    place = CheckpointFolder(args["folder"])
    existing = place.open()
    digest, record = record_of(existing) if existing is not None else ("", {})
    if existing is not None:
        os.close(existing)
    index = Index(args["state_dir"], place.path)
    if not digest or digest != index.record or record.get("built", {}).get("identity") != args["identity"]:
        raise Refused(f"{place.path} does not hold what is declared there", hint="run apply again")
    files = [list(each) for each in record["files"]]
    return {**transfer.serve_files({**args, "files": files}), "files": files}


def build(job: jobs.Job, args: State) -> State:
    """The job: everything up to the published folder; returns the notes."""
    ask, act = args["ask"], args["act"]
    if act.get("attached"):
        raise Refused("the job that received it ended just now", "stale", hint="run apply again")
    place = CheckpointFolder(ask["folder"])
    existing = place.open()
    who = users.owner_of(ask["owner"], existing)
    base, known = _base(ask, act)
    os.makedirs(ask["state_dir"], mode=0o700, exist_ok=True)
    index = Index(ask["state_dir"], place.path)
    if existing is not None:
        publish.hand_over(existing, who, index)
    folders = [base, *([existing] if existing is not None else [])]
    with preserved(ask["state_dir"], *folders):
        if act.get("peer"):
            done = _receive(job, ask, act, place, existing, known, who, index)
        else:
            done = _build(job, ask, act, place, existing, base, known, who, index)
    return {"notes": done.get("notes", []), "notices": done["notices"]}


def _build(
    job: jobs.Job,
    ask: State,
    act: State,
    place: CheckpointFolder,
    existing: int | None,
    base: int,
    known: dict[str, str],
    who: pwd.struct_passwd,
    index: Index,
) -> State:
    from sparkops.programs.build.build import Building
    from sparkops.programs.checkpoints.foreign_files import copy_foreign_files
    from sparkops.programs.fetch.existing import ExistingFolder
    from sparkops.programs.quantize import quantize  # acts only: a look does not pay for it

    steps, files = list(act["steps"]), act["base"]["files"]
    held = _held(ask, act, existing, index)
    if "quantize" not in steps[0]:
        quantize.discard(place.beside(place.quantized))
    elif not (held is not None and _whole(held, place, existing, who, job, index)):
        output = place.beside(place.quantized)
        quantize.quantize(job, steps.pop(0)["quantize"], ask["base"], output, who)
        base, files, known = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC), [], {}
        held = None
    staging = place.stage(who)
    order = {
        "folder": place.path,
        "identity": act["identity"],
        "files": files,
        "donors": act["donors"],
        "steps": steps,
        "record": act["record"],
        "known": known,
        "manner": act["manner"],
    }
    previous = record_of(existing)[1].get("files", []) if existing is not None else []

    def work(say: rights.Report) -> State:
        os.fchdir(staging)
        if held is not None and existing is not None:
            right = ExistingFolder(existing, rights.Said(say, job.check))
            right.verify(held["files"], held["known"])
            if len(right.verified) == len(held["files"]):
                return {"in_place": True, "files": held["files"], "notes": []}
            _keep(right, held["files"], act["identity"])
        done = Building(order, base, say, job.check).work()
        if existing is not None:
            copy_foreign_files(existing, {path for path, _, _ in [*previous, *done["files"]]})
        return done

    listener = IndexListener(job, index)
    try:
        done = rights.run(who, work, listener)
    finally:
        if index.entries:
            index.save()
    if "staged" in done:
        index.record = _digest(_text(act, done["files"]))
        publish.finish(place, staging, existing, done["staged"], done["files"], index, listener)
    elif existing is not None:
        publish.finish_in_place(place, existing, done["files"], index)
    return {**done, "notices": listener.notices}


def _receive(
    job: jobs.Job,
    ask: State,
    act: State,
    place: CheckpointFolder,
    existing: int | None,
    known: dict[str, str],
    who: pwd.struct_passwd,
    index: Index,
) -> State:
    """Bring the files that another node built; those that it took over from the base are taken from the base here."""
    from sparkops.programs.fetch import caller  # acts only: a look does not pay for it
    from sparkops.programs.fetch.main import Spec

    spec: Spec = {
        "mode": "fetch",
        "folder": place.path,
        "files": act["files"],
        "previous": caller.previous(existing),
        "known": {**known, **_believed(ask, act, index)},
        "prefixes": index.prefixes(),
        "record": _text(act, act["files"]),
        "adopt": [ask["base"]],
        "repository": act["record"]["repository"],
        "commit": act["record"]["commit"],
        "peer": act["peer"],
        "options": act["manner"],
    }
    return caller.bring(place, existing, who, spec, index, job, built=True)


def _text(act: State, files: Files) -> str:
    """The record of a built folder."""
    return json.dumps({**act["record"], "files": files}, sort_keys=True, separators=(",", ":"))


def _digest(record: str) -> str:
    return "sha256:" + hashlib.sha256(record.encode()).hexdigest()


def _whole(
    held: State,
    place: CheckpointFolder,
    existing: int | None,
    who: pwd.struct_passwd,
    job: jobs.Job,
    index: Index,
) -> bool:
    """Whether nothing of the published folder is damaged; else a quantised one is made anew as a whole.

    Two runs of AutoRound need not make the same bytes, and files of both would not go together.
    """
    from sparkops.programs.fetch import caller  # acts only: a look does not pay for it

    assert existing is not None
    told = caller.verify_files(place, existing, held["files"], held["known"], index, job)
    return not told["missing"] and not told["wrong"]


def _base(ask: State, act: State) -> tuple[int, dict[str, str]]:
    """The base folder, and what its files are proven to hold, by their identities. Raises Refused where it is not."""
    base, name = os.path.realpath(ask["base"]), os.path.realpath(ask["folder"])
    if os.path.commonpath([base, name]) in (base, name):
        raise Refused(f"{name} and its base {base} lie in one another", hint="name another folder for what is built")
    handle = CheckpointFolder(ask["base"]).open()
    if handle is None:
        raise Refused(f"the base {ask['base']} is not there", hint="sparkops apply brings it first")
    index = Index(ask["state_dir"], ask["base"])
    return handle, {mark: oid for mark, (oid, _) in index.entries.items()}


def _keep(right: "ExistingFolder", files: Files, identity: str) -> None:
    """What is right in the published folder stands in staging from the start, as if this run had built it.

    An earlier run of the same build has done so already, and may have finished more.
    """
    from sparkops.programs.build.build import JOURNAL  # acts only: a look does not pay for it

    os.makedirs(os.path.dirname(JOURNAL), mode=0o755, exist_ok=True)
    with contextlib.suppress(FileNotFoundError, ValueError), open(JOURNAL, encoding="utf-8") as file:
        if json.load(file).get("identity") == identity:
            return
    finished: dict[str, list[Any]] = {}
    for path, size, oid in files:
        if path in right.verified:
            os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
            right.link(path, path)
            finished[path] = [oid, size, lasting(os.lstat(path))]
    atomic.write(JOURNAL, json.dumps({"identity": identity, "files": finished}).encode(), 0o600)


def _held(ask: State, act: State, existing: int | None, index: Index) -> State | None:
    """What the published folder should hold, where it was built of the very same: then only what is wrong is redone."""
    if existing is None:
        return None
    digest, record = record_of(existing)
    if not digest or digest != index.record or record.get("built", {}).get("identity") != act["identity"]:
        return None
    return {"files": record["files"], "known": _believed(ask, act, index)}


def _believed(ask: State, act: State, index: Index) -> dict[str, str]:
    """What of the index needs no second hashing."""
    from sparkops.programs.fetch import caller  # acts only: a look does not pay for it

    return index.known(caller.trusted_since(bool(act.get("again")), bool(ask.get("deep"))))


JOBS = {"build": build}
CALLS = {"relay": relay, "running": running}
