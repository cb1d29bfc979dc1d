"""Taking over what runs on a node already: what differs from the declared service, and moving it aside.

Nothing is deleted and nothing is claimed here: the next apply starts the declared service, and it claims. How a
container, a unit and a spec are compared stands in `comparing`.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from sparkops.compile.compiler import compile_inventory, spec_of
from sparkops.core import events, fact_text
from sparkops.core.errors import ConvergeFailed, InventoryError
from sparkops.core.messages import Fields
from sparkops.core.plan import Step
from sparkops.core.request_messages import AdoptLook, AdoptTold, TakeoverAsk
from sparkops.core.secrets import Secret, SecretRef
from sparkops.core.states import Observed, State
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.secrets import Secrets
from sparkops.operate import adopt_diff
from sparkops.operate.adopt_diff import Difference
from sparkops.operate.connect import Context
from sparkops.operate.follow import follow
from sparkops.operate.services import Rank, ranks
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.run import run
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.resource import Resource

if TYPE_CHECKING:
    from sparkops.nodes.session import Session

KIND = "adopt"
"""The worker's module that finds such things and moves them aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A rank as it is declared: the launcher's spec, the names of its secret environment, its checkpoint if any."""

    rank: Rank
    spec: Fields
    secret: tuple[str, ...]
    checkpoint: Checkpoint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundUnit:
    """A unit that is not sparkops'. `diff` is a text diff to the declared one, where it has that one's name."""

    name: str
    active: bool
    enabled: bool
    differences: tuple[Difference, ...] = ()
    diff: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFolder:
    """What a folder or cache at `path` holds of the declared commit: paths, and bytes that need not be fetched."""

    path: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    right_bytes: int
    other_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What was found in the place of a service, and after it was taken over the commands that lead `back`."""

    node: str
    service: str
    container: Fields | None = None
    differences: tuple[Difference, ...] = ()
    units: tuple[FoundUnit, ...] = ()
    folder: FoundFolder | None = None
    taken: bool = False
    back: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        return self.container is None and not self.units and self.folder is None

    @property
    def exit_status(self) -> int:
        """2 where there is something that was not taken over, else 0."""
        return 0 if self.empty or self.taken else 2


def pick(inventory: Inventory, node: str | None, service: str | None) -> Declared:
    """The rank that is meant: named, or the only one. Raises InventoryError, SecretError."""
    there = [rank for rank in ranks(inventory) if node in (None, rank.node) and service in (None, rank.service)]
    if len(there) != 1:
        every = ", ".join(f"{rank.node} {rank.service}" for rank in ranks(inventory))
        words = " ".join(filter(None, (node, service)))
        raise InventoryError.of(
            "adopt-service-ambiguous",
            count=len(there) or "no",
            words=f" by {words!r}" if words else "",
            declared=every or "none is declared",
        )
    (rank,) = there
    compiled = compile_inventory(inventory, limit=(rank.node,), secrets=Secrets())
    own = compiled.of(rank.node, rank.service)
    spec = next(filter(None, map(spec_of, own)), None)
    if spec is None:
        raise InventoryError.of("service-without-spec", service=rank.service)
    environment = inventory.variables(rank.node, rank.service)["service"].get("environment") or {}
    return Declared(
        rank=rank,
        spec=spec,
        secret=tuple(name for name, value in environment.items() if isinstance(value, (Secret, SecretRef))),
        checkpoint=next((each for each in own if isinstance(each, Checkpoint)), None),
    )


def find(
    fleet: Fleet,
    declared: Declared,
    *,
    container: str = "",
    unit: str = "",
    folder: str = "",
    listener: events.Listener = events.silent,
) -> Adoption:
    """Look at the node; nothing is touched. `container`, `unit` and `folder` name what is meant.

    Raises InventoryError where several containers could be meant, or what was named is not there.
    """
    rank = declared.rank
    question: AdoptLook = {
        "image": declared.spec["image"],
        "container": declared.spec["container"],
        "port": declared.spec["port"],
        "unit": rank.unit.name,
        "chosen": container,
        "chosen_unit": unit,
    }
    answer: AdoptTold = fleet.session(rank.node).call(f"{KIND}.look", question, timeout=120)
    found = _only(answer["containers"], container, rank.node)
    told = {each["name"]: each for each in answer["units"]}
    if unit and unit not in told:
        raise InventoryError.of("foreign-unit-not-found", where=rank.node, unit=unit)
    place = folder or (adopt_diff.model_source(found) if found is not None else "")
    return Adoption(
        node=rank.node,
        service=rank.service,
        container=found,
        differences=adopt_diff.container(found, declared.spec, declared.secret) if found is not None else (),
        units=tuple(_unit(each, declared) for each in told.values()),
        folder=_compared(fleet, declared, place, listener) if place and declared.checkpoint is not None else None,
    )


def _only(found: Sequence[Fields], chosen: str, node: str) -> Fields | None:
    if len(found) > 1:
        names = ", ".join(str(each["name"]) for each in found)
        raise InventoryError.of("container-ambiguous", where=node, names=names)
    if chosen and not found:
        raise InventoryError.of("container-not-found", where=node, chosen=chosen)
    return found[0] if found else None


def _unit(found: Fields, declared: Declared) -> FoundUnit:
    name, text = str(found["name"]), str(found["text"])
    diff = ""
    if name == declared.rank.unit.name:
        wanted = getattr(declared.rank.unit.content, "text", declared.rank.unit.content) or ""
        lines = difflib.unified_diff(
            text.splitlines(), fact_text.shown(str(wanted)).splitlines(), "there", "declared", lineterm=""
        )
        diff = adopt_diff.masked("\n".join(lines))
    return FoundUnit(
        name=name,
        active=bool(found["active"]),
        enabled=bool(found["enabled"]),
        differences=() if found["containers"] else adopt_diff.unit(text, declared.spec),
        diff=diff,
    )


def _compared(fleet: Fleet, declared: Declared, place: str, listener: events.Listener) -> FoundFolder | None:
    """What of the declared commit lies there, every byte of it read. Raises HubError, CallFailed."""
    assert declared.checkpoint is not None
    ready = declared.checkpoint.prepare()
    assert ready.manifest is not None
    question = {"path": place, "folder": ready.name, "state_dir": ready.state_dir, "manifest": ready.manifest.canonical}
    asking = fleet.session(ready.node).stream(f"{KIND}.compare", question)
    told = follow(asking, ready.node, f"compare {place}", listener)
    return FoundFolder(
        path=place,
        right=tuple(told["right"]),
        wrong=tuple(told["wrong"]),
        missing=tuple(told["missing"]),
        unreadable=tuple(told["unreadable"]),
        right_bytes=told["right_bytes"],
        other_bytes=told["other_bytes"],
    )


@dataclass(frozen=True, kw_only=True)
class Takeover(Resource):
    """What was found in the place of a service is out of its way: units stopped and disabled, the container renamed.

    container: its `id` and `name`. unit: the declared unit's name; a foreign one that has it is copied first.
    checkpoint: takes over the right files of the model before that, while the old engine still answers.
    """

    kind: ClassVar[str] = KIND
    claimed: ClassVar[bool] = False
    interrupts: ClassVar[frozenset[str]] = frozenset({"in_place"})

    container: Mapping[str, str] | None
    units: tuple[str, ...]
    unit: str
    state_dir: str
    checkpoint: Checkpoint | None = None

    def ask(self) -> TakeoverAsk:
        return {
            "container": self.container,
            "units": list(self.units),
            "unit": self.unit,
            "state_dir": self.state_dir,
        }

    def desired(self) -> State:
        return {"in_place": []}

    def converge(self, session: Session, step: Step) -> Generator[Mapping[str, object], None, Observed]:
        if self.checkpoint is not None:
            request = {"ask": self.checkpoint.ask(), "act": self.checkpoint.act(step)}
            yield from session.stream("checkpoint.missing", request)
        return (yield from super().converge(session, step))


def take(context: Context, declared: Declared, found: Adoption) -> Adoption:
    """Take over what was found, under the node's lock.

    Raises LockBusy with nothing touched; ConvergeFailed where the node refuses.
    """
    thing = _takeover(context.inventory, declared, found)
    options = context.options(
        "adopt",
        f"adopt {found.node} {found.service}",
        agree=lambda report: True,
        replace=frozenset({thing.id}),
        declared=False,
        rolled=False,
        modules=frozenset({Checkpoint.kind} if thing.checkpoint is not None else ()),
    )
    report = run([thing], options)
    for why in (*report.plan.unreachable.values(), *report.plan.unknown.values()):
        raise ConvergeFailed.of(why.id, where=found.node, **why.args)
    (result,) = report.results
    if result.reason is not None:
        raise ConvergeFailed.of(result.reason.id, where=found.node, **result.reason.args)
    return dataclasses.replace(found, taken=True, back=back(found, declared.rank.unit.name, result.found or {}))


def _takeover(inventory: Inventory, declared: Declared, found: Adoption) -> Takeover:
    old, folder, checkpoint = found.container, found.folder, None
    wanted = declared.checkpoint
    if folder is not None and folder.right and wanted is not None and os.path.normpath(folder.path) != wanted.name:
        checkpoint = dataclasses.replace(wanted, adopt=(folder.path,)).prepare()
    names = [*([f"container {old['name']}"] if old else []), *(f"unit {each.name}" for each in found.units)]
    names += [f"files of {folder.path}"] if checkpoint is not None and folder is not None else []
    return Takeover(
        node=found.node,
        name=", ".join(names),
        service=found.service,
        container=old and {"id": str(old["id"]), "name": str(old["name"])},
        units=tuple(each.name for each in found.units),
        unit=declared.rank.unit.name,
        state_dir=inventory.nodes[found.node].connection.state_dir,
        checkpoint=checkpoint,
    )


def back(found: Adoption, unit: str, after: Fields) -> tuple[str, ...]:
    """The commands, to be given on the node as root, by which all is as it was before. Pure."""
    lines = [f"systemctl disable --now {unit}"]
    for each in found.units:
        if each.name in after["copies"]:
            lines += [f"cp {after['copies'][each.name]} /etc/systemd/system/{each.name}", "systemctl daemon-reload"]
    old = found.container
    if old is not None and after["container"]:
        policy = old["host"].get("RestartPolicy") or {}
        name = str(policy.get("Name") or "no")
        retries = f":{policy['MaximumRetryCount']}" if policy.get("MaximumRetryCount") else ""
        lines += [f"docker rename {after['container']} {old['name']}"] * (after["container"] != old["name"])
        lines += [f"docker update --restart={name}{retries} {old['name']}"] * (name != "no")
        lines += [f"docker start {old['name']}"] * bool(old["running"])
    for each in found.units:
        lines += [f"systemctl enable {each.name}"] * each.enabled + [f"systemctl start {each.name}"] * each.active
    return tuple(lines)
