"""The caller's side of the fetch program: what needs the rights of who publishes.

On a node that is a job of the worker as root, elsewhere a command as its user.
"""

import hashlib
import json
import os
import pwd
import stat
import time
from collections.abc import Sequence
from typing import Any

from sparkops.core.messages import Refused
from sparkops.programs import runner, users
from sparkops.programs.checkpoints import loaded_files, publish, verify, whereabouts
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import (
    Index,
    IndexListener,
    Job,
    Notice,
    files_below,
    identities_below,
    preserved,
)
from sparkops.programs.checkpoints.proof import RECORD, identity
from sparkops.programs.fetch import elsewhere
from sparkops.programs.fetch.main import Spec

PROGRAM = "sparkops.programs.fetch.main"
State = dict[str, Any]


def run(spec: Spec, owner: pwd.struct_passwd, listener: IndexListener, job: Job, descriptors: Sequence[int]) -> State:
    """The program's result."""
    return dict(runner.run(PROGRAM, spec, listener, user=owner, descriptors=descriptors, stop=job.cancelled))


def bring(
    place: CheckpointFolder, existing: int | None, owner: pwd.struct_passwd, spec: Spec, index: Index, job: Job,
    *, built: bool = False,
) -> State:  # fmt: skip
    """Fetch what `spec` says (all but the descriptors) as the owner and publish it; `{notices}`, and `missing`.

    `built`: the record is that of a build, and the index remembers its digest.
    """
    staging = place.stage(owner)
    listener = IndexListener(job, index)
    folders = [staging, *([] if existing is None else [existing])]
    try:
        done = run({**spec, "existing": existing, "staging": staging}, owner, listener, job, folders)
    finally:
        if index.entries:
            index.save()
    index.record = "sha256:" + hashlib.sha256(spec["record"].encode()).hexdigest() if built else ""
    if "staged" in done:
        publish.finish(place, staging, existing, done["staged"], spec["files"], index, listener)
    elif existing is not None and "in_place" in done:
        publish.finish_in_place(place, existing, spec["files"], owner, index)
    os.close(staging)
    return {"missing": done.get("missing", []), "notices": listener.notices}


def fetch(query: State, request: State, job: Job) -> State:
    """Bring the folder of `query` to hold the manifest of `request`, as `worker/kinds/checkpoint` describes both.

    Returns `notices`; in mode `list` also what is `missing`. Raises Refused.
    """
    if request.get("attached"):
        raise Refused.of("transfer-just-ended", type="stale", folder=query["folder"])
    whereabouts.require(query["folder"], query["state_dir"])
    place = CheckpointFolder(query["folder"])
    existing = place.open()
    owner = users.owner_of(query["owner"], existing)
    os.makedirs(query["state_dir"], mode=0o700, exist_ok=True)
    index = Index(query["state_dir"], place.path)
    if existing is not None:
        publish.hand_over(existing, previous(existing), owner, index)
    wanted = {str(oid) for _, _, oid in json.loads(request["manifest"])["files"]} - set(index.known().values())
    own = [] if existing is None else [existing]
    with (
        elsewhere.holders(wanted, index, query["state_dir"]) as holders,
        preserved(query["state_dir"], *own, *(folder for _, folder in holders)),
    ):
        linked = 0
        if holders:
            staging = place.stage(owner)
            linked = elsewhere.link(holders, staging, owner, wanted, index)
            os.close(staging)
        done = bring(
            place, existing, owner, _spec(place, existing, request, index, bool(query.get("deep"))), index, job
        )
    if linked:
        args = {"folder": place.path, "count": linked, "ways": [f"{linked} by link"]}
        done["notices"].append(("files-adopted", args))
    return done


def _spec(place: CheckpointFolder, existing: int | None, request: State, index: Index, deep: bool) -> Spec:
    manifest = json.loads(request["manifest"])
    of = {"repository": manifest["repository"], "commit": manifest["commit"]}
    return {
        "mode": request["mode"],
        "folder": place.path,
        "files": manifest["files"],
        "previous": previous(existing),
        "known": index.known(trusted_since(bool(request.get("again")), deep)),
        "prefixes": index.prefixes(),
        "record": request["manifest"],
        "adopt": request["adopt"],
        "repository": of["repository"],
        "commit": of["commit"],
        "hub": {**request["hub"], **of},
        "peer": request.get("peer"),
        "options": request["manner"],
    }


def previous(existing: int | None) -> list[str]:
    """The paths that the record of an open folder names."""
    return [path for path, _, _ in record_of(existing)[1].get("files", [])] if existing is not None else []


def trusted_since(again: bool, deep: bool) -> float:
    """From when on a proof needs no second hashing: `again` trusts none, `deep` those of the last day."""
    return time.time() - (verify.DEEP_AFTER if deep and not again else 0.0) if again or deep else 0.0


def verify_files(
    place: CheckpointFolder, existing: int, files: list[Any], known: dict[str, str], index: Index, job: Job
) -> State:
    """Hash the files of an open folder that `known` lacks: what `ExistingFolder.summary` returns, and `notices`."""
    listener = IndexListener(job, index)
    spec: Spec = {"mode": "verify", "folder": place.path, "existing": existing, "files": files, "known": known}
    try:
        done = run(spec, users.owner_of("", existing), listener, job, [existing])
    finally:
        index.save(identities_below(existing))
    return {**done, "notices": listener.notices}


def verify_folder(folder: str, state_dir: str, again: bool, job: Job) -> State:
    """Verify a folder against its own record, with `again` also what was verified before."""
    place = CheckpointFolder(folder)
    existing = place.open()
    if existing is None:
        raise Refused.of("checkpoint-missing", folder=folder)
    started = time.time()
    try:
        digest, record = record_of(existing)
        if not digest:
            raise Refused.of("checkpoint-without-record", folder=folder)
        index = Index(state_dir, folder)
        known = {} if again else index.known()
        done = verify_files(place, existing, record["files"], known, index, job)
        if index.record and digest != index.record:
            done["wrong"].append(RECORD)
        hashed = verify.file_lists(existing, record["files"], index, deep=False)["hashed"]
        done["notices"] += _extra(existing, folder, record["files"])
    finally:
        os.close(existing)
    return {**done, **_described(digest, record), "hashed_at": hashed, "seconds": time.time() - started}


def unchanged(folder: str, state_dir: str) -> State | None:
    """The answer of `verify_folder` for a folder that is verified as it stands; None for any other."""
    existing = CheckpointFolder(folder).open()
    if existing is None:
        return None
    try:
        digest, record = record_of(existing)
        files = record.get("files", [])
        index = Index(state_dir, folder)
        hashed = verify.file_lists(existing, files, index, deep=False)["hashed"]
        notices = _extra(existing, folder, files)
    finally:
        os.close(existing)
    if not hashed or index.record not in ("", digest):
        return None
    sums = {"files": len(files), "size": sum(size for _, size, _ in files), "hashed": 0}
    return {**sums, "missing": [], "wrong": [], "notices": notices, **_described(digest, record), "hashed_at": hashed}


def _extra(existing: int, folder: str, files: list[Any]) -> list[Notice]:
    """The notice of what an engine may load beside the `files` of the record."""
    found = loaded_files.foreign(existing, folder, {path for path, _, _ in files})
    return [loaded_files.notice(folder, found)] if found else []


def _described(digest: str, record: State) -> State:
    """What a record says of its folder."""
    about = {key: record.get(key, "") for key in ("repository", "commit")}
    return {**about, **verify.sources_of(record), "manifest": digest}


def hash_folder(folder: str, state_dir: str, job: Job) -> State:
    """`{files: [[path, size, oid]], repository, commit}` of any folder, the last two "" where it has no record.

    Raises Refused for a folder that has links in it, or none.
    """
    place = CheckpointFolder(folder)
    existing = place.open()
    if existing is None:
        raise Refused.of("base-missing", folder=folder)
    try:
        _, record = record_of(existing)
        oids = {path: oid for path, _, oid in record.get("files", [])}
        statuses = {os.path.normpath(path): status for path, status in files_below(existing) if not _hidden(path)}
        if links := [path for path, status in statuses.items() if stat.S_ISLNK(status.st_mode)]:
            raise Refused.of("base-made-of-links", folder=folder, first=links[0])
        index = Index(state_dir, folder)
        known = {identity(status): index.find(status) for status in statuses.values()}
        files = [
            (path, status.st_size, (known[identity(status)] or (oids.get(path, "sha256:"),))[0])
            for path, status in statuses.items()
        ]
        verify_files(place, existing, files, index.known(), index, job)
        found = []
        for path, size, _ in files:
            read = index.find(os.stat(path, dir_fd=existing, follow_symlinks=False))
            if read is None:
                raise Refused.of("file-being-written", file=os.path.join(folder, path))
            found.append([path, size, read[0]])
    finally:
        os.close(existing)
    return {"files": found, "repository": record.get("repository", ""), "commit": record.get("commit", "")}


def _hidden(path: str) -> bool:
    return any(part.startswith(".") and part != "." for part in path.split("/"))


def compare(path: str, folder: str, state_dir: str, manifest: str, job: Job) -> State:
    """What the folder or cache at `path` holds of a manifest; the index of `folder` learns what was verified."""
    try:
        owner = pwd.getpwuid(os.stat(path).st_uid)
    except KeyError:
        owner = users.find("")
    index = Index(state_dir, folder)
    wanted = json.loads(manifest)
    spec: Spec = {
        "mode": "compare", "folder": path, "files": wanted["files"], "known": index.known(),
        "repository": wanted["repository"], "commit": wanted["commit"],
    }  # fmt: skip
    done = run(spec, owner, IndexListener(job, index), job, [])
    if index.entries:
        index.save()
    return done
