"""What the files of any folder are by their hashes, as a job: of a folder that no record tells of, or not yet proven.

What was hashed goes into the folder's verification index, so that a second look costs file stats only.
"""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints import verify as proof
from sparkops.programs.checkpoints.folder import Place, record_of
from sparkops.worker.calls import Call, Refused
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights
from sparkops.worker.system.progress import Tracker

State = dict[str, Any]
Found = list[tuple[str, os.stat_result]]


def folder(call: Call, args: State) -> State:
    """`{folder, state_dir}` → `{files: [[path, size, oid]], repository, commit}`, the last two "" without a record."""
    return dict(jobs.run(call, f"checkpoint {args['folder']}", __name__, "sum", args, attach="sum"))


def add(job: jobs.Job, args: State) -> State:
    """The job of `folder`. Raises Refused for a folder that holds links, or none."""
    place = Place(args["folder"])
    handle = place.open()
    if handle is None:
        raise Refused(f"{place.folder} is not there", hint="name a folder, or a repository as ORG/NAME")
    _, record = record_of(handle)
    told = {path: oid for path, _, oid in record.get("files", [])}
    found = [each for each in proof.walk(handle) if not _hidden(each[0])]
    found = [(os.path.normpath(path), status) for path, status in found]
    links = [path for path, status in found if stat.S_ISLNK(status.st_mode)]
    if links:
        raise Refused(
            f"{place.folder} is made of links, such as {links[0]}",
            hint="of the hub client's cache, name the repository (ORG/NAME): its files are linked from there",
        )
    index = hashes.Index(args["state_dir"], place.folder)
    order = [(path, status.st_size, _sort(told.get(path))) for path, status in found]
    unsure = [each for each, (_, status) in zip(order, found, strict=True) if index.find(status) is None]

    def work(say: rights.Report) -> State:
        _hash(handle, unsure, Tracker(say, job.check, "hashing the base", sum(size for _, size, _ in unsure)), say)
        return {}

    try:
        rights.run(proof.who_of("", handle), work, proof.hearing(job, index))
    finally:
        index.save(keep={hashes.identity(status) for _, status in proof.walk(handle)})
    files = []
    for path, size, _ in order:
        known = index.find(os.stat(path, dir_fd=handle, follow_symlinks=False))
        if known is None:
            raise Refused(f"{path} changed while it was read", hint="find out who writes there, then run again")
        files.append([path, size, known[0]])
    return {"files": files, "repository": record.get("repository", ""), "commit": record.get("commit", "")}


def _hidden(path: str) -> bool:
    return any(part.startswith(".") and part != "." for part in path.split("/"))


def _sort(oid: str | None) -> str:
    return oid or "sha256:"


def _hash(handle: int, files: list[tuple[str, int, str]], tracker: Tracker, say: rights.Report) -> None:
    def one(each: tuple[str, int, str]) -> None:
        path, size, sort = each
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
        try:
            before = hashes.identity(os.fstat(file))
            oid = hashes.read_oid(file, sort, size, tracker.read)
            if hashes.identity(os.fstat(file)) == before:
                say({"hashed": [before, oid]})
        finally:
            os.close(file)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done in [pool.submit(one, each) for each in files]:
            done.result()


JOBS = {"sum": add}
CALLS = {"folder": folder}
