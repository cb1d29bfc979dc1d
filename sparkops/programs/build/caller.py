"""The caller's side of the build program: what needs the rights of who publishes.

On a node that is a job of the worker as root, elsewhere a command as its user.

`query` is `{folder, state_dir, owner, deep, base}`; `request` is `{identity, base: {files}, donors, steps, record,
again, manner}`.
"""

import hashlib
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparkops.core.messages import Refused
from sparkops.programs import runner, users
from sparkops.programs.build import main
from sparkops.programs.build.spec import Files, Spec, record_text
from sparkops.programs.checkpoints import publish, whereabouts
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index, IndexListener, Job, Notice, preserved
from sparkops.programs.fetch import caller as fetch

PROGRAM = main.__name__
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """The folder to be built: its names, what is published now (an open folder), its owner and its index."""

    place: CheckpointFolder
    existing: int | None
    owner: pwd.struct_passwd
    index: Index
    job: Job

    def published(self, identity: str) -> Files:
        """The files of the published folder, where it was built from the same inputs; else none."""
        digest, record = record_of(self.existing) if self.existing is not None else ("", {})
        same = digest and digest == self.index.record and record.get("built", {}).get("identity") == identity
        return [list(each) for each in record["files"]] if same else []


Quantize = Callable[[Target, State], str]
"""`quantize(target, options)`: the folder with the quantized base."""


def build(query: State, request: State, job: Job, quantize: Quantize | None = None) -> list[Notice]:
    """Build the folder of `query`, or receive it from `request["peer"]`, and publish it. Raises Refused.

    `quantize` does a first step of that name.
    """
    if request.get("attached"):
        raise Refused.of("transfer-just-ended", type="stale", folder=query["folder"])
    whereabouts.require(query["folder"], query["state_dir"])
    place = CheckpointFolder(query["folder"])
    existing = place.open()
    owner = users.owner_of(query["owner"], existing)
    base = _open_base(query)
    os.makedirs(query["state_dir"], mode=0o700, exist_ok=True)
    target = Target(place, existing, owner, Index(query["state_dir"], place.path), job)
    if existing is not None:
        publish.hand_over(existing, fetch.previous(existing), owner, target.index)
    with preserved(query["state_dir"], base, *([existing] if existing is not None else [])):
        if request.get("peer"):
            return _receive(target, query, request)
        return _build(target, query, request, base, quantize)


def _open_base(query: State) -> int:
    base, folder = os.path.realpath(query["base"]), os.path.realpath(query["folder"])
    if os.path.commonpath([base, folder]) in (base, folder):
        raise Refused.of("build-base-overlaps", folder=folder, base=base)
    handle = CheckpointFolder(query["base"]).open()
    if handle is None:
        raise Refused.of("build-base-missing", folder=query["base"])
    return handle


def _build(target: Target, query: State, request: State, base: int, quantize: Quantize | None) -> list[Notice]:
    steps, files = list(request["steps"]), request["base"]["files"]
    known = Index(query["state_dir"], query["base"]).known()
    published, trusted = target.published(request["identity"]), _trusted(target, query, request)
    if quantize is not None and "quantize" in steps[0] and not _undamaged(target, published, trusted):
        output = quantize(target, steps.pop(0)["quantize"])
        base, files, known, published = os.open(output, _FOLDER), [], {}, []
    return _run(
        target,
        {
            "mode": "build",
            "base": base,
            "files": files,
            "known": known,
            "existing": target.existing,
            "previous": fetch.previous(target.existing),
            "published": published,
            "published_known": trusted,
            "folder": target.place.path,
            "identity": request["identity"],
            "record": request["record"],
            "donors": request["donors"],
            "steps": steps,
            "fetch": request["manner"],
        },
    )


def _run(target: Target, spec: Spec) -> list[Notice]:
    """Run the program in the staging folder, and publish that."""
    place, existing, index, job = target.place, target.existing, target.index, target.job
    staging = place.stage(target.owner)
    listener = IndexListener(job, index)
    folders = [spec["base"], staging, *([existing] if existing is not None else [])]
    try:
        done = runner.run(
            PROGRAM,
            {**spec, "staging": staging},
            listener,
            user=target.owner,
            descriptors=folders,
            stop=job.cancelled,
        )
    finally:
        if index.entries:
            index.save()
    if done["staged"] is not None:
        index.record = _digest(record_text(spec["record"], done["files"]))
        publish.finish(place, staging, existing, done["staged"], done["files"], index, listener)
    elif existing is not None:
        publish.finish_in_place(place, existing, done["files"], target.owner, index)
    os.close(staging)
    return listener.notices


def _receive(target: Target, query: State, request: State) -> list[Notice]:
    """Fetch the files that another node built; those that it took over from the base are taken from the base here."""
    done = fetch.bring(
        target.place,
        target.existing,
        target.owner,
        {
            "mode": "fetch",
            "folder": target.place.path,
            "files": request["files"],
            "previous": fetch.previous(target.existing),
            "known": {**Index(query["state_dir"], query["base"]).known(), **_trusted(target, query, request)},
            "prefixes": target.index.prefixes(),
            "record": record_text(request["record"], request["files"]),
            "adopt": [query["base"]],
            "repository": request["record"]["repository"],
            "commit": request["record"]["commit"],
            "peer": request["peer"],
            "options": request["manner"],
        },
        target.index,
        target.job,
        built=True,
    )
    return list(done["notices"])


def _undamaged(target: Target, files: Files, known: dict[str, str]) -> bool:
    """Whether the published folder has all these files; else a quantized one is made again as a whole.

    Two runs of AutoRound need not make the same bytes, and files of both would not fit together.
    """
    if not files or target.existing is None:
        return False
    done = fetch.verify_files(target.place, target.existing, files, known, target.index, target.job)
    return not done["missing"] and not done["wrong"]


def _trusted(target: Target, query: State, request: State) -> dict[str, str]:
    """What of the target's index needs no second hashing."""
    return target.index.known(fetch.trusted_since(bool(request.get("again")), bool(query.get("deep"))))


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
