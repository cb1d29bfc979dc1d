"""What a published folder is proven to hold, and how what was staged takes its place with its proof.

Shared by the kinds whose thing is a folder with a record: `checkpoint` and `built_checkpoint`. It must not know how
content gets into the staging folder.
"""

import contextlib
import os
import pwd
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from sparkops.programs.checkpoints import folder as checkpoint_place
from sparkops.programs.checkpoints import hashes
from sparkops.programs.checkpoints.folder import Place, record_of
from sparkops.programs.checkpoints.foreign_files import left_behind
from sparkops.worker.calls import Refused, Unknown
from sparkops.worker.system import jobs
from sparkops.worker.system import privileges as rights

SHOWN = 20
"""Paths that a list in a state shows at most."""
DEEP_AFTER = 86400.0
"""Seconds after which `deep` no longer trusts a proof."""

State = dict[str, Any]


def seen(ask: State, told: Callable[[str, State, hashes.Index], State]) -> State | None:
    """The state of the folder of `ask` (`{folder, state_dir, deep}`), None where there is none. Raises Unknown.

    `told(digest, record, index)` adds what the kind reads out of the record.
    """
    place = Place(ask["folder"])
    try:
        handle = place.open()
    except Refused as error:
        raise Unknown(str(error)) from None
    if handle is None:
        return None
    try:
        digest, record = record_of(handle)
        index = hashes.Index(ask["state_dir"], place.folder)
        return {
            **told(digest, record, index),
            "owner": _owner(os.fstat(handle).st_uid),
            "leftover": place.leftover(),
            "strange": not digest and bool(os.listdir(handle)),
            **held(handle, record.get("files", []), index, bool(ask.get("deep"))),
        }
    finally:
        os.close(handle)


def made_of(record: State) -> State:
    """By which `steps`, and with weights of which `donors`, a record says that its folder was built."""
    built = record.get("built", {})
    donors = [each for each in built.get("donors", []) if isinstance(each, dict)]
    return {
        "donors": [f"{each.get('repository')}@{str(each.get('commit'))[:12]}" for each in donors],
        "steps": [next(iter(step), "") for step in built.get("steps", [])],
    }


def held(handle: int, files: list[tuple[str, int, str]], index: hashes.Index, deep: bool) -> State:
    """Which files of a record are missing, wrong or unverified; `hashed`: since when all is proven, or ""."""
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


def retire(place: Place, state_dir: str) -> None:
    """Remove a folder that has a record of ours, and what is known of it. Raises Refused."""
    handle = place.open()
    if handle is None:
        return
    digest, _ = record_of(handle)
    if not digest:
        os.close(handle)
        raise Refused(f"{place.folder} has no record of sparkops", hint="look into it and remove it by hand")
    with our_links(state_dir, handle):
        place.retire()
        hashes.Index(state_dir, place.folder).forget()
    os.close(handle)


def who_of(name: str, existing: int | None) -> pwd.struct_passwd:
    """The declared owner, else whose the folder is, else who connected."""
    if name or existing is None:
        return rights.user(name)
    try:
        return pwd.getpwuid(os.fstat(existing).st_uid)
    except KeyError:
        return rights.user("")


def hand_over(existing: int, who: pwd.struct_passwd, index: hashes.Index) -> None:
    """The folder becomes the owner's; what was proven stays proven where only the owner changed."""
    if os.fstat(existing).st_uid == who.pw_uid:
        return
    before = dict(walk(existing))
    checkpoint_place.hand_over(existing, who)
    for path, status in walk(existing):
        known = index.find(before[path]) if path in before else None
        if known is not None and hashes.lasting(before[path]) == hashes.lasting(status):
            index.note(hashes.identity(status), *known)


def walk(handle: int) -> list[tuple[str, os.stat_result]]:
    """Every file below an open folder, with its status."""
    return [
        (os.path.join(folder, name), os.stat(name, dir_fd=at, follow_symlinks=False))
        for folder, _, files, at in os.fwalk(".", dir_fd=handle, follow_symlinks=False)
        for name in files
    ]


@contextlib.contextmanager
def our_links(state_dir: str, *folders: int) -> Iterator[None]:
    """Around acts that give files of open folders another name or take one away: what was proven stays proven.

    Such an act moves a file's ctime, by its inode in every folder that has it; all indexes of the node are told.
    """
    before = {hashes.identity(status): status for folder in folders for _, status in walk(folder)}
    try:
        yield
    finally:
        for index in hashes.indexes(state_dir):
            _follow(index, {before[mark].st_ino: mark for mark in index.entries if mark in before}, before)


def _follow(index: hashes.Index, marks: dict[int, str], before: dict[str, os.stat_result]) -> None:
    handle = Place(index.folder).open() if marks else None
    if handle is None:
        return
    try:
        now = [status for _, status in walk(handle) if status.st_ino in marks]
    finally:
        os.close(handle)
    for status in now:
        mark = marks[status.st_ino]
        if hashes.lasting(status) == hashes.lasting(before[mark]) and hashes.identity(status) != mark:
            index.note(hashes.identity(status), *index.entries[mark])
    index.save()


def finish(place: Place, staging: int, existing: int | None, done: State, order: State, index: hashes.Index) -> None:
    """Note what was proven, publish, sweep. The note comes first: a crash in between costs no second hashing.

    Where files of somebody else would be gone with the old folder, that stays beside, and `done["notes"]` says so.
    """
    index.keep_prefixes({oid for _, _, oid in order["files"]})
    if "staged" in done:
        read = dict(sorted(index.entries.values(), key=lambda entry: entry[1]))
        proven = {}
        for path, _, oid in order["files"]:
            status = os.stat(path, dir_fd=staging, follow_symlinks=False)
            if hashes.identity(status) == done["staged"].get(path):
                proven[path] = hashes.lasting(status)
                index.note(hashes.identity(status), oid, read.get(oid))
        lost = [] if existing is None else _lost(existing, staging, order["files"], index)
        index.save()
        kept = place.publish(staging, aside=bool(lost))
        if kept:
            done["notes"] = [*done["notes"], _aside(place, kept, lost)]
        place.sweep()
        _note_again(staging, order["files"], proven, read, index)
    else:
        assert existing is not None
        place.sweep()
        index.save(keep={hashes.identity(status) for _, status in walk(existing)})


def _lost(existing: int, staging: int, files: list[Any], index: hashes.Index) -> list[str]:
    """What the published folder holds that its record does not explain and the staged one does not have."""
    ours = {path for path, _, _ in record_of(existing)[1].get("files", [])}
    oids = {path: oid for path, _, oid in files}
    return left_behind(existing, staging, ours, oids, lambda status: (index.find(status) or ("",))[0])


def _aside(place: Place, kept: str, lost: list[str]) -> str:
    """What is said of a folder that was set aside."""
    more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
    return (
        f"{place.folder} held {', '.join(lost[:3])}{more} with other content and without a record of sparkops: "
        f"the folder as it was is now {kept}; remove it by hand when nobody needs it"
    )


def _note_again(folder: int, files: list[Any], proven: dict[str, str], read: dict[str, float], index: Any) -> None:
    """Taking a file's other name away with the old folder moved its ctime; our own act unproves nothing."""
    kept = set()
    for path, _, oid in files:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
        if proven.get(path) == hashes.lasting(status):
            index.note(hashes.identity(status), oid, read.get(oid))
            kept.add(hashes.identity(status))
    index.save(keep=kept)


def hearing(job: jobs.Job, index: hashes.Index) -> rights.Report:
    """What the child tells: its progress goes to the job, what it hashed into the index, which keeps prefix digests."""

    def hear(message: State) -> None:
        if isinstance(message.get("progress"), dict):
            job.progress(**{key: message["progress"].get(key) for key in ("text", "done", "total")})
        if isinstance(message.get("hashed"), list):
            mark, oid = message["hashed"]
            index.note(str(mark), str(oid))
        if isinstance(message.get("prefixes"), list):
            oid, digests = message["prefixes"]
            index.note_prefixes(str(oid), list(digests))

    return hear
