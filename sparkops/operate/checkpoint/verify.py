"""Checkpoints on nodes proven against their own records: offline, in parallel on each node, as node jobs.

It must not know hubs: what a folder should hold stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkops.compile.compiler import compile_inventory
from sparkops.core import events
from sparkops.core.errors import ConnectionFailed, InventoryError, SparkopsError
from sparkops.core.wording import Message
from sparkops.nodes.session import Session
from sparkops.operate.connect import Context, reach
from sparkops.operate.follow import follow
from sparkops.resources.built_checkpoint import BuiltCheckpoint
from sparkops.resources.checkpoint import OfRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One folder on one node. `reason` says what kept it from being proven; sizes are bytes, `seconds` the node's own.

    `hashed` are the bytes that had to be read: what has not changed since it was last read is not read again.
    `hashed_at` is when the oldest proof was made (UTC, "" where a file is missing or wrong). `built`: it is declared to
    be built of the repository; its record then says by which `steps`, and with weights of which `donors`.
    """

    node: str
    folder: str
    reason: Message | None = None
    silent: bool = False
    repository: str = ""
    commit: str = ""
    files: int = 0
    size: int = 0
    hashed: int = 0
    hashed_at: str = ""
    seconds: float = 0.0
    built: bool = False
    steps: tuple[str, ...] = ()
    donors: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every file is there with its content."""
        return not (self.reason or self.missing or self.wrong)


def verify(context: Context, nodes: tuple[str, ...], *, deep: bool = False) -> tuple[Verified, ...]:
    """Prove the declared checkpoints of these nodes; with `deep` all is read again. Raises InventoryError for none."""
    compiled = compile_inventory(context.inventory)
    declared: dict[str, dict[str, OfRepository]] = {
        node: {each.name: each for each in compiled.of(node) if isinstance(each, OfRepository)} for node in nodes
    }
    if not any(declared.values()):
        raise InventoryError.of("no-checkpoint-declared")

    def prove(node: str, session: Session) -> list[Verified]:
        return [_one(node, session, each, deep, context.listener) for each in declared[node].values()]

    wanted = [node for node in nodes if declared[node]]
    with reach(context, wanted, ["checkpoint"]) as fleet:
        answers, silent = fleet.each(wanted, prove)
    found: list[Verified] = []
    for node in wanted:
        found += answers.get(node, ())
        if error := silent.get(node):
            found += [Verified(node=node, folder=each, reason=error.message, silent=True) for each in declared[node]]
    return tuple(found)


def _one(node: str, session: Session, what: OfRepository, deep: bool, listener: events.Listener) -> Verified:
    args = {"folder": what.name, "state_dir": what.state_dir, "again": deep}
    asking = session.stream("checkpoint.verify", args)
    try:
        told = dict(follow(asking, node, f"checkpoint {what.name} @{node}", listener))
    except SparkopsError as error:
        return Verified(node=node, folder=what.name, reason=error.message, silent=isinstance(error, ConnectionFailed))
    told |= {key: tuple(map(str, told[key])) for key in ("missing", "wrong", "steps", "donors")}
    del told["manifest"]
    for notice in told.pop("notices"):
        listener(events.Notice(node=node, message=Message(*notice)))
    return Verified(node=node, folder=what.name, built=isinstance(what, BuiltCheckpoint), **told)
