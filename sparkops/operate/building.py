"""A checkpoint built on this machine, without an inventory: the same resources, road and jobs as on a node."""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkops.core import events
from sparkops.core.errors import InventoryError
from sparkops.core.report import Report
from sparkops.core.secrets import Secret
from sparkops.inventory.recipes import read_recipe
from sparkops.models import build_steps
from sparkops.nodes.bundle import kinds_bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.operate.following import followed
from sparkops.reconcile import plan, schedule
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import observe
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import Checkpoint, OfRepository

HERE = "here"
NAMELESS = "local"
"""The repository that a record names where the base is a folder of unknown origin."""
KINDS = ("checkpoint", "built_checkpoint", "summing")


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


def build(order: Order, *, listener: events.Listener = events.silent, stop: threading.Event | None = None) -> Report:
    """Build it, or go on with it. Raises InventoryError, HubError, and what kept the base from being read."""
    started = time.monotonic()
    target = Target(name=HERE, type="local", state_dir=_state_dir())
    with Fleet(
        {HERE: target},
        cluster="",
        connections=Connections(Passwords()),
        program=kinds_bundle(KINDS),
        listener=listener,
    ) as fleet:
        resources = _resources(order, fleet, target.state_dir, listener)
        seen = observe(fleet, resources)
        made = plan.build(resources, seen, today=datetime.datetime.now(datetime.timezone.utc).date())
        results = schedule.run(
            made, resources, fleet, facts=seen.facts, stop=stop or threading.Event(), listener=listener
        )
    return Report(
        command="apply",
        cluster=str(order.output),
        inventory="",
        plan=made,
        results=results,
        seconds=time.monotonic() - started,
        interrupted=any(result.outcome == "interrupted" for result in results),
    )


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
    if layers:
        steps = [{"hybrid": {**step["hybrid"], "layers": layers}} if "hybrid" in step else step for step in steps]
    for fault in build_steps.faults(steps):
        raise InventoryError(fault.what, hint=fault.hint)
    return steps


def _resources(order: Order, fleet: Fleet, state_dir: str, listener: events.Listener) -> tuple[OfRepository, ...]:
    """The base, where it has to be fetched, and what is built of it; both know what the hub says."""
    output = Path(os.path.normpath(Path.cwd() / order.output.expanduser()))
    common: dict[str, Any] = {
        "node": HERE,
        "endpoint": order.endpoint,
        "token": order.token,
        "state_dir": state_dir,
    }
    folder = Path(order.base).expanduser()
    if folder.is_dir():
        base = str(folder.resolve())
        told = followed(
            fleet.session(HERE).stream("summing.folder", {"folder": base, "state_dir": state_dir}),
            HERE,
            f"checkpoint {base} @{HERE}",
            listener,
        )
        name = str(told["repository"] or NAMELESS)
        built = BuiltCheckpoint(name=str(output), base=base, repository=name, steps=tuple(order.steps), **common)
        return (built.of_files(str(told["commit"]), told["files"]),)
    if folder.exists() or order.base.startswith((".", "/", "~")):
        raise InventoryError(f"{order.base} is no folder", hint="name a folder, or a repository as ORG/NAME")
    fetched = Checkpoint(
        name=str(output.parent / order.base.replace("/", "--")),
        repository=order.base,
        revision=order.revision,
        **common,
    ).prepare()
    assert fetched.manifest is not None
    built = BuiltCheckpoint(
        name=str(output),
        base=fetched.name,
        repository=order.base,
        revision=order.revision,
        steps=tuple(order.steps),
        after=(fetched.id,),
        **common,
    )
    return fetched, built.ready(fetched.manifest)


def _state_dir() -> str:
    """Where this machine keeps what it has hashed: the user's own."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return str(home / "sparkops" / "here")
