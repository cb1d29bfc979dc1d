"""A checkpoint built on this machine, without an inventory: the programs that nodes run, as the user."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkops.checkpoints.build_inputs import BuildInputs, of_donors, repository_spec, resolve_donors
from sparkops.checkpoints.hub import Hub, HubError
from sparkops.checkpoints.manifest import Manifest, ManifestFile, is_commit, is_repository
from sparkops.core import data, events
from sparkops.core.errors import ConvergeFailed, Interrupted, InventoryError, LockBusy, SparkopsError
from sparkops.core.messages import Fields, Refused, Unknown, error_of
from sparkops.core.secrets import Secret
from sparkops.core.wording import Message, words
from sparkops.inventory.recipes import read_recipe
from sparkops.models import build_steps
from sparkops.programs import runner
from sparkops.programs.build import caller as build_program
from sparkops.programs.checkpoints.index import Notice
from sparkops.programs.checkpoints.proof import RECORD
from sparkops.programs.checkpoints.verify import observe_built as observe
from sparkops.programs.fetch import caller as fetch_program
from sparkops.programs.progress import Listener, Reporter

NAMELESS = "local"
"""The repository that a record names where the base is a folder of unknown origin."""
DOWNLOAD = {"connections": 6, "segment": 64 << 20, "stall": 30.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build: `base` is a folder here or ORG/NAME, `output` the folder to make of it by `steps`.

    `revision` is that of a repository; `endpoint` and `token` are the hub's.
    """

    base: str
    output: Path
    steps: Sequence[Mapping[str, object]]
    revision: str = "main"
    endpoint: str = ""
    token: Secret | None = None

    @property
    def folder(self) -> Path:
        """The output's absolute path, links in it not followed."""
        return Path(os.path.normpath(Path.cwd() / self.output.expanduser()))

    @property
    def base_folder(self) -> Path | None:
        """The base, where it is a folder here."""
        folder = Path(self.base).expanduser()
        return folder.resolve() if folder.is_dir() else None

    @property
    def hub(self) -> Hub:
        return Hub(self.endpoint, self.token)

    @property
    def access(self) -> dict[str, str]:
        """How a program accesses the hub."""
        return {"endpoint": self.hub.endpoint, "token": self.token.reveal() if self.token else ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build made: `status` is `built`, or `unchanged` where all was there already. `size` are bytes."""

    output: str
    status: str
    identity: str
    size: int
    notices: tuple[Message, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCheck:
    """What one step would do to the tensors; or why it is `refused`. `from_donors` are bytes."""

    name: str
    changed: int = 0
    added: int = 0
    removed: int = 0
    from_donors: int = 0
    notices: tuple[Message, ...] = ()
    refused: Message | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a build would make. Bytes: `size` of all weights, `written` of them rather than taken over from the base.

    `needed` has to be free on the output's disk, `free` is; donors and a base to be fetched included.
    """

    output: str
    steps: tuple[StepCheck, ...]
    size: int = 0
    files: int = 0
    written: int = 0
    needed: int = 0
    free: int = 0

    @property
    def refused(self) -> bool:
        """Whether the build would be."""
        return any(step.refused for step in self.steps) or self.needed > self.free


class _Job(Reporter):
    """One piece of work, `name`, as the programs' callers report it: progress, and whether the user wants to stop."""

    def __init__(self, name: str, listener: events.Listener, stop: threading.Event) -> None:
        super().__init__(lambda told: listener(events.StepProgress.from_mapping("", name, told)), stop)
        self.name, self.listener = name, listener

    @contextlib.contextmanager
    def step(self) -> Generator[None, None, None]:
        """Around the work: its start and end are reported, and an error gets its words."""
        started = time.monotonic()
        self.listener(events.StepStarted(node="", id=self.name, action="create"))
        outcome, reason = "failed", None
        try:
            with _worded():
                yield
            outcome = "done"
        except SparkopsError as error:
            outcome, reason = "interrupted" if isinstance(error, Interrupted) else "failed", error.message
            raise
        finally:
            seconds = time.monotonic() - started
            self.listener(events.StepFinished(node="", id=self.name, outcome=outcome, seconds=seconds, reason=reason))


def build(order: Order, *, listener: events.Listener = events.silent, stop: threading.Event | None = None) -> Built:
    """Build it, or resume it.

    Raises InventoryError for a wrong order, HubError, LockBusy, Interrupted, and ConvergeFailed where the build fails.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    _require_free(order)
    output = str(order.folder)
    with _locked(output), _worded():
        base, inputs = _prepared(order, listener, stop)
        query = {"folder": output, "state_dir": _state_dir(), "owner": "", "deep": False, "base": base}
        notices: list[Notice] = []
        status = "unchanged"
        if not _is_built(observe(query), inputs.identity):
            status, job = "built", _Job(f"checkpoint {output}", listener, stop)
            with job.step():
                notices = build_program.build(query, inputs.request(order.access, DOWNLOAD), job)
        size = (observe(query) or {}).get("size", 0)
    messages = tuple(Message(id, args) for id, args in notices)
    for message in messages:
        listener(events.Notice(message=message))
    seconds = time.monotonic() - started
    return Built(
        output=output, status=status, identity=inputs.identity, size=size, notices=messages, seconds=round(seconds, 1)
    )


def check(order: Order, *, listener: events.Listener = events.silent, stop: threading.Event | None = None) -> Checked:
    """What each step would do, from the headers of base and donors. Raises InventoryError, HubError, SparkopsError."""
    _require_free(order)
    job = _Job(f"check {order.folder}", listener, stop or threading.Event())
    folder = order.base_folder
    with _worded(), tempfile.TemporaryDirectory(prefix="sparkops-check-") as scratch, contextlib.ExitStack() as opened:
        donors = resolve_donors(order.steps, order.hub)
        spec: dict[str, Any] = {"mode": "check", "staging": _opened(scratch, opened), "folder": str(order.folder)}
        if folder is not None:
            spec["base"] = _opened(str(folder), opened)
        else:
            spec["repository"] = repository_spec(_manifest(order), order.access)
        request = of_donors(donors, order.steps, order.access, DOWNLOAD)
        spec |= {"donors": request["donors"], "steps": request["steps"], "fetch": request["manner"]}
        descriptors = [spec[key] for key in ("staging", "base") if key in spec]
        done = runner.run(build_program.PROGRAM, spec, Listener(job), descriptors=descriptors)
    steps = tuple(_step_check(each) for each in done["steps"])
    return Checked(output=str(order.folder), **{**done, "steps": steps})


def steps_of(declared: Sequence[str], layers: str, recipe: str) -> list[dict[str, object]]:
    """The steps of the command line, or of a recipe. Raises InventoryError for none, or for an order that can't be."""
    if bool(declared) == bool(recipe):
        raise InventoryError.of("build-steps-twice" if declared else "build-steps-missing", front_end="command")
    if recipe:
        found = read_recipe(recipe, Path.cwd()).variables.get("checkpoint", {}).get("steps")
        if not found:
            raise InventoryError.of("build-recipe-without-steps", front_end="command", recipe=recipe)
        steps = [dict(each) for each in found]
    else:
        steps = [build_steps.parsed(word) for word in declared]
    if layers and not any("hybrid" in step for step in steps):
        raise InventoryError.of("build-layers-without-hybrid", front_end="command", layers=layers)
    if layers:
        steps = [{"hybrid": {**step["hybrid"], "layers": layers}} if "hybrid" in step else step for step in steps]
    for fault in (*build_steps.unformed(steps), *build_steps.faults(steps)):
        raise InventoryError.of(fault.id, front_end="command", **fault.args)
    return steps


def _prepared(order: Order, listener: events.Listener, stop: threading.Event) -> tuple[str, BuildInputs]:
    """The base's folder, hashed or fetched, and all that goes into the build. Raises Refused, HubError."""
    folder, state_dir, steps = order.base_folder, _state_dir(), tuple(order.steps)
    donors = resolve_donors(steps, order.hub)
    if folder is not None:
        job = _Job(f"checkpoint {folder}", listener, stop)
        found = fetch_program.hash_folder(str(folder), state_dir, job)
        files = tuple(ManifestFile(path, size, oid) for path, size, oid in found["files"])
        commit = found["commit"] if is_commit(found["commit"]) else "0" * 40
        repository = found["repository"] or NAMELESS
        return str(folder), BuildInputs(repository, Manifest(repository, commit, files), donors, steps)
    manifest = _manifest(order)
    base = str(order.folder.parent / order.base.replace("/", "--"))
    unchanged = fetch_program.unchanged(base, state_dir)
    if unchanged is None or unchanged["manifest"] != manifest.digest:
        query = {"folder": base, "state_dir": state_dir, "owner": "", "deep": False}
        request = {
            "mode": "fetch",
            "manifest": manifest.canonical,
            "adopt": [_cache()],
            "hub": order.access,
            "manner": DOWNLOAD,
        }
        job = _Job(f"checkpoint {base}", listener, stop)
        with job.step():
            fetch_program.fetch(query, request, job)
    return base, BuildInputs(order.base, manifest, donors, steps)


def _manifest(order: Order) -> Manifest:
    """What the repository that is the base holds. Raises InventoryError, HubError."""
    if (
        Path(order.base).expanduser().exists()
        or order.base.startswith((".", "/", "~"))
        or not is_repository(order.base)
    ):
        raise InventoryError.of("build-base-neither", front_end="command", base=order.base)
    hub = order.hub
    revision = order.revision
    return hub.manifest(order.base, revision if is_commit(revision) else hub.resolve(order.base, revision).commit)


def _is_built(state: Mapping[str, object] | None, identity: str) -> bool:
    faults = ("missing", "wrong", "unverified", "leftover")
    return state is not None and state.get("identity") == identity and not any(state.get(key) for key in faults)


def _step_check(step: Fields) -> StepCheck:
    if "error" in step:
        return StepCheck(name=step["name"], refused=Message.from_json(step["error"]))
    numbers = {key: step[key] for key in ("name", "changed", "added", "removed", "from_donors")}
    return StepCheck(**numbers, notices=tuple(Message(id, args) for id, args in step["notices"]))


@contextlib.contextmanager
def _worded() -> Generator[None, None, None]:
    """Errors of the programs and of the hub as those of a command without an inventory."""
    try:
        yield
    except (Refused, Unknown) as error:
        refused = error_of(error)
        kind = {"cancelled": Interrupted, "unknown": _NotKnown}.get(refused.type, ConvergeFailed)
        made = kind(refused.id, refused.values, where="", front_end="command")
        made.what = "\n".join(filter(None, (made.what, refused.detail)))
        raise made from None
    except HubError as error:
        if error.id:
            error.hint = words(error.id, error.args_by_name, "command")[1]
        raise


class _NotKnown(SparkopsError):
    """Something here could not be found out."""

    exit_status = 3


@contextlib.contextmanager
def _locked(output: str) -> Generator[None, None, None]:
    """One build of an output at a time. Raises LockBusy."""
    folder = Path(_state_dir(), "locks")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / hashlib.sha256(output.encode()).hexdigest()[:16]).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockBusy.of("build-running", front_end="command", folder=output) from None
        yield


def _opened(folder: str, stack: contextlib.ExitStack) -> int:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    return handle


def _require_free(order: Order) -> None:
    """Raises InventoryError where the output's place is not one to build in: it holds, or is, something else."""
    output, base = order.folder, order.base_folder
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise InventoryError.of("build-output-not-a-folder", front_end="command", path=str(path))
    if output.is_symlink():
        target = os.path.realpath(output)
        raise InventoryError.of("build-output-is-a-link", front_end="command", path=str(output), target=target)
    if base is not None:
        real = Path(os.path.realpath(output))
        if real.is_relative_to(base) or base.is_relative_to(real):
            raise InventoryError.of("build-base-overlaps", front_end="command", folder=str(output), base=str(base))
    if output.is_dir() and any(output.iterdir()) and not _is_built_folder(output):
        raise InventoryError.of("build-output-foreign", front_end="command", folder=str(output))


def _is_built_folder(folder: Path) -> bool:
    """Whether it has the record of a build; whether the record is right is found out by the build itself."""
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "built" in record


def _cache() -> str:
    """The Hugging Face cache of this process, found as huggingface_hub does."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return str(Path(os.environ.get("HF_HUB_CACHE") or home).expanduser().absolute())


def _state_dir() -> str:
    """Where this machine keeps what it has hashed: the user's own."""
    return str(data.state_folder() / "here")
