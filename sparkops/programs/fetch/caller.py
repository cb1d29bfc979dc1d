"""The caller's side of the fetch program: what needs the rights of who publishes.

On a node that is a job of the worker as root, elsewhere a command as its user.
"""

import contextlib
import json
import os
import pwd
import stat
import time
from collections.abc import Iterator

from sparkops.core.descriptors import closing
from sparkops.core.messages import Refused
from sparkops.core.request_messages import ComparedFiles
from sparkops.programs import runner, users
from sparkops.programs.checkpoints import loaded_files, verify
from sparkops.programs.checkpoints.folder import CheckpointFolder, Files, record_of
from sparkops.programs.checkpoints.index import (
    Index,
    IndexListener,
    Notice,
    files_below,
    identities_below,
    preserved,
)
from sparkops.programs.checkpoints.proof import RECORD
from sparkops.programs.checkpoints.target import Target
from sparkops.programs.checkpoints.verify import State
from sparkops.programs.fetch import elsewhere
from sparkops.programs.fetch.main import Spec
from sparkops.programs.progress import Reporter

PROGRAM = "sparkops.programs.fetch.main"


def fetch(query: State, request: State, job: Reporter) -> State:
    """Bring the folder of `query` to hold the manifest of `request`, as `worker/kinds/checkpoint` describes both.

    Returns `notices`; in mode `list` also what is `missing`. Raises Refused.
    """
    target = Target.of(query, request, job)
    index, manifest = target.index, json.loads(request["manifest"])
    wanted = {str(oid) for _, _, oid in manifest["files"]} - set(index.known().values())
    with elsewhere.holders(wanted, index, query["state_dir"]) as holders:
        linked, folders = 0, [folder for _, folder in holders]
        if holders:  # their indexes are right again before the fetch, which may take hours or be killed
            with preserved(query["state_dir"], *folders), closing(target.place.stage(target.owner)) as staging:
                linked = elsewhere.link(holders, staging, target.owner, wanted, index)
        known = index.known(trusted_since(bool(request.get("again")), bool(query.get("deep"))))
        spec = spec_of(target, request, manifest, known)
        of = {"repository": manifest["repository"], "commit": manifest["commit"]}
        given = {**spec, "mode": request["mode"], "hub": {**request["hub"], **of}}
        with preserved(query["state_dir"], *target.folders, *folders):
            done = target.bring(PROGRAM, given, lambda _: "")
    if linked:
        args = {"folder": target.place.path, "count": linked, "ways": [f"{linked} by link"]}
        done["notices"].append(("files-adopted", args))
    return done


def spec_of(target: Target, request: State, of: State, known: dict[str, str]) -> Spec:
    """What the program is given to bring the files of a manifest or record `of`, but for where from and where to."""
    return {
        "mode": "fetch",
        "files": of["files"],
        "known": known,
        "prefixes": target.index.prefixes(),
        "record": request["manifest"],
        "adopt": request["adopt"],
        "repository": of["repository"],
        "commit": of["commit"],
        "peer": request.get("peer"),
        "options": request["manner"],
    }


def trusted_since(again: bool, deep: bool) -> float:
    """From when on a proof needs no second hashing: `again` trusts none, `deep` those of the last day."""
    return time.time() - (verify.DEEP_AFTER if deep and not again else 0.0) if again or deep else 0.0


def verify_files(
    place: CheckpointFolder, existing: int, files: Files, known: dict[str, str], index: Index, job: Reporter
) -> State:
    """Hash the files of an open folder that `known` lacks: what `ExistingFolder.summary` returns, and `notices`."""
    listener = IndexListener(job, index)
    spec: Spec = {"mode": "verify", "folder": place.path, "existing": existing, "files": files, "known": known}
    try:
        done = runner.run(PROGRAM, spec, listener, user=users.owner_of("", existing), descriptors=[existing])
    finally:
        index.save(identities_below(existing))
    return {**done, "notices": listener.notices}


def verify_folder(folder: str, state_dir: str, again: bool, job: Reporter) -> State:
    """Verify a folder against its own record, with `again` also what was verified before."""
    started = time.time()
    with _opened(folder, "checkpoint-missing") as existing:
        digest, record = record_of(existing)
        if not digest:
            raise Refused.of("checkpoint-without-record", folder=folder)
        index = Index(state_dir, folder)
        known = {} if again else index.known()
        done = verify_files(CheckpointFolder(folder), existing, record["files"], known, index, job)
        if index.record and digest != index.record:
            done["wrong"].append(RECORD)
        hashed = verify.file_lists(existing, record["files"], index, deep=False)["hashed"]
        done["notices"] += _extra(existing, folder, record["files"])
    return {**done, **_described(digest, record), "hashed_at": hashed, "seconds": time.time() - started}


@contextlib.contextmanager
def _opened(folder: str, missing: str) -> Iterator[int]:
    """A published folder, open. Raises Refused `missing` where there is none."""
    existing = CheckpointFolder(folder).open()
    if existing is None:
        raise Refused.of(missing, folder=folder)
    with closing(existing):
        yield existing


def unchanged(folder: str, state_dir: str) -> State | None:
    """The answer of `verify_folder` for a folder that is verified as it stands; None for any other."""
    existing = CheckpointFolder(folder).open()
    if existing is None:
        return None
    with closing(existing):
        digest, record = record_of(existing)
        files = record.get("files", [])
        index = Index(state_dir, folder)
        hashed = verify.file_lists(existing, files, index, deep=False)["hashed"]
        notices = _extra(existing, folder, files)
    if not hashed or index.record not in ("", digest):
        return None
    sums = {"files": len(files), "size": sum(size for _, size, _ in files), "hashed": 0}
    return {**sums, "missing": [], "wrong": [], "notices": notices, **_described(digest, record), "hashed_at": hashed}


def _extra(existing: int, folder: str, files: Files) -> list[Notice]:
    """The notice of what an engine may load beside the `files` of the record."""
    found = loaded_files.foreign(existing, folder, {path for path, _, _ in files})
    return [loaded_files.notice(folder, found)] if found else []


def _described(digest: str, record: State) -> State:
    """What a record says of its folder."""
    about = {key: record.get(key, "") for key in ("repository", "commit")}
    return {**about, **verify.sources_of(record), "manifest": digest}


def hash_folder(folder: str, state_dir: str, job: Reporter) -> State:
    """`{files: [[path, size, oid]], repository, commit}` of any folder, the last two "" where it has no record.

    Raises Refused for a folder that has links in it, or none.
    """
    with _opened(folder, "base-missing") as existing:
        _, record = record_of(existing)
        oids = {path: oid for path, _, oid in record.get("files", [])}
        statuses = {path: status for path, status in files_below(existing) if not _hidden(path)}
        if links := [path for path, status in statuses.items() if stat.S_ISLNK(status.st_mode)]:
            raise Refused.of("base-made-of-links", folder=folder, first=links[0])
        index = Index(state_dir, folder)
        files = [
            (path, status.st_size, (index.find(status) or (oids.get(path, "sha256:"),))[0])
            for path, status in statuses.items()
        ]
        verify_files(CheckpointFolder(folder), existing, files, index.known(), index, job)
        found = []
        for path, size, _ in files:
            read = index.find(os.stat(path, dir_fd=existing, follow_symlinks=False))
            if read is None:
                raise Refused.of("file-being-written", file=os.path.join(folder, path))
            found.append([path, size, read[0]])
    return {"files": found, "repository": record.get("repository", ""), "commit": record.get("commit", "")}


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def compare(path: str, folder: str, state_dir: str, manifest: str, job: Reporter) -> ComparedFiles:
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
    done: ComparedFiles = runner.run(PROGRAM, spec, IndexListener(job, index), user=owner)
    if index.entries:
        index.save()
    return done
