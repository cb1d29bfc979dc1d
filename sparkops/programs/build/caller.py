"""The caller's side of the build program: what needs the rights of who publishes.

On a node that is a job of the worker as root, elsewhere a command as its user.

`query` is `{folder, state_dir, owner, deep, base}`; `request` is `{identity, base: {files}, donors, steps, record,
again, manner}`.
"""

import os
from collections.abc import Callable

from sparkops.core.descriptors import FOLDER
from sparkops.core.messages import Refused
from sparkops.programs.build import main
from sparkops.programs.build.spec import Files, Spec, record_text
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.index import Index, Notice, preserved
from sparkops.programs.checkpoints.target import Target, digest
from sparkops.programs.checkpoints.verify import State
from sparkops.programs.fetch import caller as fetch
from sparkops.programs.progress import Reporter

PROGRAM = main.__name__

Quantize = Callable[[Target, State], str]
"""`quantize(target, options)`: the folder with the quantized base."""


def build(query: State, request: State, job: Reporter, quantize: Quantize | None = None) -> list[Notice]:
    """Build the folder of `query`, or receive it from `request["peer"]`, and publish it. Raises Refused.

    `quantize` does a first step of that name.
    """
    base = _open_base(query)
    target = Target.of(query, request, job)
    with preserved(query["state_dir"], base, *target.folders):
        if request.get("peer"):
            return _receive(target, query, request)
        return _build(target, query, request, base, quantize)


def _published(target: Target, identity: str) -> Files:
    """The files of the published folder, where it was built from the same inputs; else none."""
    digest, record = record_of(target.existing) if target.existing is not None else ("", {})
    same = digest and digest == target.index.record and record.get("built", {}).get("identity") == identity
    return record["files"] if same else []


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
    published, trusted = _published(target, request["identity"]), _trusted(target, query, request)
    if quantize is not None and "quantize" in steps[0] and not _undamaged(target, published, trusted):
        output = quantize(target, steps.pop(0)["quantize"])
        base, files, known, published = os.open(output, FOLDER), [], {}, []
    spec: Spec = {
        "mode": "build",
        "base": base,
        "files": files,
        "known": known,
        "published": published,
        "published_known": trusted,
        "identity": request["identity"],
        "record": request["record"],
        "donors": request["donors"],
        "steps": steps,
        "fetch": request["manner"],
    }

    def record(done: State) -> str:
        new = done["staged"] is not None
        return digest(record_text(request["record"], done["files"])) if new else target.index.record

    return list(target.bring(PROGRAM, spec, record)["notices"])


def _receive(target: Target, query: State, request: State) -> list[Notice]:
    """Fetch the files that another node built; those that it took over from the base are taken from the base here."""
    record, files = request["record"], request["files"]
    text = record_text(record, files)
    known = {**Index(query["state_dir"], query["base"]).known(), **_trusted(target, query, request)}
    wanted = {**request, "manifest": text, "adopt": [query["base"]]}
    spec = fetch.spec_of(target, wanted, {**record, "files": files}, known)
    return list(target.bring(fetch.PROGRAM, spec, lambda _: digest(text))["notices"])


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
