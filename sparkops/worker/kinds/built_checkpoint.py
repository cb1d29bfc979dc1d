"""The `built_checkpoint` kind on the node: a folder that is built from a base folder and tensors of donors.

Observing costs file statuses only, as for `checkpoint`. What the record says of the build counts only while it is the
very text that a job of ours published: its digest is in the verification index, which is not the owner's.

`ask` is `{folder, state_dir, owner, deep, base}`; `act` is `{identity, base: {manifest, files}, donors, steps, record,
again, manner}`; with `peer` and `files` it is received from a node that has built it. A damaged file alone is built
again: the steps make the same bytes, and what is right is linked.
"""

from typing import TYPE_CHECKING, Any

from sparkops.core.kind_messages import FilesServe, ImageAsk, RunningRequest
from sparkops.core.messages import Fields, Refused
from sparkops.programs.checkpoints.folder import CheckpointFolder, record_of
from sparkops.programs.checkpoints.verify import observe_built as observe
from sparkops.worker.calls import Call
from sparkops.worker.system import jobs

if TYPE_CHECKING:
    from sparkops.programs.checkpoints.target import Target

State = dict[str, Any]


def converge(call: Call, ask: State, found: State | None, want: State | None, act: State) -> None:
    """Build the folder that `act` declares; `want` None removes it. Raises Refused."""
    if want is None:
        _remove(ask, found)
        return
    done = jobs.run(call, _key(ask), __name__, "build", {"ask": ask, "act": act}, attach=_attach(act))
    for id, args in done:
        call.progress(notice={"id": id, "args": args})


def _remove(ask: State, found: State | None) -> None:
    from sparkops.programs.checkpoints import publish  # acts only: an observation does not load it
    from sparkops.programs.quantize import caller

    place = CheckpointFolder(ask["folder"])
    caller.discard(place.beside(place.quantized))
    if found is not None:
        publish.retire(place, ask["state_dir"])


def _key(ask: Fields) -> str:
    return f"checkpoint {ask['folder']}"


def _attach(act: Fields) -> str:
    return f"build {act['identity']}{' again' if act.get('again') else ''}"


def running(call: Call, args: RunningRequest) -> bool:
    """Whether a job that builds or receives this one runs already."""
    return jobs.attachable(_key(args["ask"]), _attach(args["act"]))


def relay(call: Call, args: FilesServe) -> dict[str, object]:
    """Start the server of a built one. Raises Refused where it is not the one."""
    from sparkops.worker.requests import transfer  # acts only: an observation does not need it

    observed = observe({**args, "deep": False}) or {}
    if not observed.get("identity") or observed["identity"] != args["identity"]:
        raise Refused.of("build-of-other-inputs", folder=args["folder"])
    existing = CheckpointFolder(args["folder"]).open()
    files = record_of(existing)[1]["files"] if existing is not None else []
    return {**transfer.serve(args["folder"], "files", {**args, "files": files}), "files": files}


def build(job: jobs.Job, ask: State, act: State) -> list[object]:
    """The job: everything up to the published folder; returns the notices."""
    from sparkops.programs.build import caller
    from sparkops.programs.quantize import caller as quantize
    from sparkops.programs.quantize.main import Spec as QuantizeSpec
    from sparkops.worker.images import pull

    place = CheckpointFolder(ask["folder"])
    output = place.beside(place.quantized)

    def quantized(target: "Target", options: State) -> str:
        user = target.owner.pw_uid
        spec: QuantizeSpec = {"options": options, "base": ask["base"], "output": output, "user": user}
        return quantize.quantize(spec, job, lambda image: pull.pull(job, _image(image)))

    if not act.get("peer") and "quantize" not in act["steps"][0]:
        quantize.discard(output)
    return list(caller.build(ask, act, job, quantized))


def _image(name: str) -> ImageAsk:
    """An image by its name, as a pull takes it."""
    named, _, digest = name.partition("@")
    repository, colon, tag = named.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = named, "" if digest else "latest"
    return {"name": name, "repository": repository, "tag": tag or None, "digest": digest or None}


CALLS = {"relay": relay, "running": running}
