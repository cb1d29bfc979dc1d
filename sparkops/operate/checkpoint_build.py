"""A checkpoint built on this machine, without an inventory: the same resources, road and jobs as on a node."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparkops.core import events
from sparkops.core.errors import InventoryError, SparkopsError
from sparkops.core.report import Report
from sparkops.core.secrets import Secret
from sparkops.inventory.recipes import read_recipe
from sparkops.models import build_steps
from sparkops.nodes.bundle import kinds_bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.operate.follow import follow
from sparkops.reconcile import plan, schedule
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import observe
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import Checkpoint, OfRepository

HERE = "here"
NAMELESS = "local"
"""The repository that a record names where the base is a folder of unknown origin."""
RECORD = ".sparkops/manifest.json"
KINDS = ("checkpoint", "built_checkpoint", "hash_folder", "dry_run")

_WORDS = (
    (r"\brun apply again: it proves the base and fetches what is damaged",
     "fetch the damaged file anew (in a folder: by what brought it), then run the same command again"),
    (r"\b(?:run )?apply again\b", "run the same command again"),
    (r"\bthe next apply looks for it again", "the same command follows it"),
    (r"\bsparkops apply brings it(?: first)?", "name one that is there"),
    (r"\bdeclare `token: !env HF_TOKEN`", "set HF_TOKEN"),
    (r"`token: !env HF_TOKEN`", "HF_TOKEN in the environment"),
    (r"\bdeclare (?:a valid|the|that user's) `token`", "set HF_TOKEN to a valid one"),
    (r"\bsparkops cancel ends it", "wait until it is done, or name another output"),
    (r" \(sparkops gc[^)]*\)", ""),
    (r"\bdeclare a folder on a larger disk", "name an output on a larger disk"),
)  # fmt: skip
"""What nodes and the hub's errors say to those who have an inventory, and what it means here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build: `base` is a folder here or ORG/NAME, `output` the folder to make of it by `steps`.

    `revision` is that of a repository; `endpoint` and `token` are the hub's.
    """

    base: str
    output: Path
    steps: Sequence[Mapping[str, Any]]
    revision: str = "main"
    endpoint: str = ""
    token: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCheck:
    """What one step would do to the tensors; or why it is `refused`. `from_donors` are bytes."""

    name: str
    changed: int = 0
    added: int = 0
    removed: int = 0
    from_donors: int = 0
    notes: tuple[str, ...] = ()
    refused: str = ""
    hint: str = ""


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


def build(order: Order, *, listener: events.Listener = events.silent, stop: threading.Event | None = None) -> Report:
    """Build it, or go on with it. Raises InventoryError, HubError, and what kept the base from being read."""
    started = time.monotonic()
    _free(order)
    target = Target(name=HERE, type="local", state_dir=_state_dir())
    with _worded(), _fleet(target, listener) as fleet:
        resources = _resources(order, fleet, target.state_dir, listener)
        seen = observe(fleet, resources)
        made = plan.compare(resources, seen, today=datetime.datetime.now(datetime.timezone.utc).date()).plan()
        results = schedule.run(
            made, resources, fleet, facts=seen.facts, stop=stop or threading.Event(), listener=_heard(listener)
        )
    return Report(
        command="build",
        cluster=HERE,
        inventory="",
        plan=made,
        results=tuple(replace(each, why=_local(each.why), hint=_local(each.hint)) for each in results),
        seconds=time.monotonic() - started,
        interrupted=any(result.outcome == "interrupted" for result in results),
    )


def check(order: Order, *, listener: events.Listener = events.silent) -> Checked:
    """What each step would do, from the headers of base and donors. Raises InventoryError, HubError, SparkopsError."""
    _free(order)
    output = _output(order)
    target = Target(name=HERE, type="local", state_dir=_state_dir())
    common = _common(order, target.state_dir)
    folder = Path(order.base).expanduser()
    with _worded(), _fleet(target, listener) as fleet:
        if folder.is_dir():
            built = _built(order, str(folder.resolve()), NAMELESS, common).ready(None)
            base: dict[str, Any] = {"folder": str(folder.resolve())}
        else:
            fetched = _fetched(order, common)
            assert fetched.manifest is not None
            built = _built(order, fetched.name, order.base, common).ready(fetched.manifest)
            base = built.source(fetched.manifest)
        asked = {**built.building(), "base": base, "folder": str(output)}
        told = follow(fleet.session(HERE).stream("dry_run.look", asked), HERE, f"check {output}", listener)
    steps = tuple(
        StepCheck(**{**each, "notes": tuple(each["notes"]), "hint": _local(each.get("hint", ""))})
        for each in told["steps"]
    )
    return Checked(output=str(output), **{**told, "steps": steps})


def steps_of(words: Sequence[str], layers: str, recipe: str) -> list[dict[str, Any]]:
    """The steps of the command line, or of a recipe. Raises InventoryError for none, or for an order that can't be."""
    if bool(words) == bool(recipe):
        raise InventoryError(
            "no steps are given" if not words else "steps are given twice", hint="give --step, or --recipe"
        )
    if recipe:
        declared = read_recipe(recipe, Path.cwd()).variables.get("checkpoint", {}).get("steps")
        if not declared:
            raise InventoryError(f"the recipe {recipe} builds no checkpoint", hint="give the steps by --step")
        steps = [dict(each) for each in declared]
    else:
        steps = [build_steps.parsed(word) for word in words]
    if layers and not any("hybrid" in step for step in steps):
        raise InventoryError(f"the layers {layers} are for the step hybrid, which is not there", hint="leave them out")
    if layers:
        steps = [{"hybrid": {**step["hybrid"], "layers": layers}} if "hybrid" in step else step for step in steps]
    for fault in (*build_steps.unformed(steps), *build_steps.faults(steps)):
        raise InventoryError(fault.what, hint=fault.hint)
    return steps


def _resources(order: Order, fleet: Fleet, state_dir: str, listener: events.Listener) -> tuple[OfRepository, ...]:
    """The base, where it has to be fetched, and what is built of it; both know what the hub says."""
    common = _common(order, state_dir)
    folder = Path(order.base).expanduser()
    if folder.is_dir():
        base = str(folder.resolve())
        asking = fleet.session(HERE).stream("hash_folder.folder", {"folder": base, "state_dir": state_dir})
        told = follow(asking, HERE, f"checkpoint {base} @{HERE}", listener)
        built = _built(order, base, str(told["repository"] or NAMELESS), common)
        return (built.of_files(str(told["commit"]), told["files"]),)
    fetched = _fetched(order, common)
    assert fetched.manifest is not None
    return fetched, _built(order, fetched.name, order.base, common, fetched.id).ready(fetched.manifest)


def _local(words: str) -> str:
    """What hub and node advise, as it is done here, where there is no inventory and no apply."""
    for pattern, here in _WORDS:
        words = re.sub(pattern, here, words)
    return words


def _heard(listener: events.Listener) -> events.Listener:
    """The listener, told of steps' ends in the words of here."""
    return lambda event: listener(
        replace(event, why=_local(event.why)) if isinstance(event, events.StepFinished) else event
    )


@contextlib.contextmanager
def _worded() -> Generator[None, None, None]:
    try:
        yield
    except SparkopsError as error:
        error.hint = _local(error.hint)
        raise


def _fleet(target: Target, listener: events.Listener) -> Fleet:
    return Fleet(
        {HERE: target},
        cluster="",
        connections=Connections(Passwords()),
        program=kinds_bundle(KINDS),
        listener=listener,
    )


def _common(order: Order, state_dir: str) -> dict[str, Any]:
    return {"node": HERE, "endpoint": order.endpoint, "token": order.token, "state_dir": state_dir}


def _output(order: Order) -> Path:
    return Path(os.path.normpath(Path.cwd() / order.output.expanduser()))


def _free(order: Order) -> None:
    """Raises InventoryError where the output's place is not one to build in: it holds, or is, something else."""
    output = _output(order)
    hint = "give another folder by -o"
    for path in (output, *output.parents):
        if path.exists() and not path.is_dir():
            raise InventoryError(f"{path} is no folder", hint=hint)
    if output.is_symlink():
        raise InventoryError(
            f"{output} is a link", hint=f"give the folder that it leads to, {os.path.realpath(output)}"
        )
    base = Path(order.base).expanduser()
    if base.is_dir():
        real, origin = Path(os.path.realpath(output)), base.resolve()
        if real.is_relative_to(origin) or origin.is_relative_to(real):
            raise InventoryError(f"{output} and its base {origin} lie in one another", hint=hint)
    if output.is_dir() and any(output.iterdir()) and not _ours(output):
        raise InventoryError(f"{output} holds files that no build put there", hint=f"{hint}, or move it away")


def _ours(folder: Path) -> bool:
    """Whether it has the record of a build; whether the record holds is told by the build's own look."""
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "built" in record


def _fetched(order: Order, common: Mapping[str, Any]) -> Checkpoint:
    """The base as a folder beside the output. Raises InventoryError, HubError."""
    if Path(order.base).expanduser().exists() or order.base.startswith((".", "/", "~")):
        raise InventoryError(f"{order.base} is no folder", hint="name a folder, or a repository as ORG/NAME")
    name = str(_output(order).parent / order.base.replace("/", "--"))
    adopt = (_cache(),)
    return Checkpoint(name=name, repository=order.base, revision=order.revision, adopt=adopt, **common).prepare()


def _cache() -> str:
    """The Hugging Face cache of this process, found as huggingface_hub does."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return str(Path(os.environ.get("HF_HUB_CACHE") or home).expanduser().absolute())


def _built(order: Order, base: str, repository: str, common: Mapping[str, Any], *after: str) -> BuiltCheckpoint:
    return BuiltCheckpoint(
        name=str(_output(order)),
        base=base,
        repository=repository,
        revision=order.revision,
        steps=tuple(order.steps),
        after=after,
        **common,
    )


def _state_dir() -> str:
    """Where this machine keeps what it has hashed: the user's own."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return str(home / "sparkops" / "here")
