"""Telling each node what was done to it, for its own record: who, from where, what, why, and how it ended.

Ids and outcomes only: no state, no reason of a failure, for those may quote what nobody checked for secrets.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Mapping, Sequence

import sparkops
from sparkops.core.plan import Step
from sparkops.core.report import Result
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.session import Session
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.removal import OwnState

KIND = "history"
"""The worker's module that keeps the record."""


def actor(command: str) -> dict[str, object]:
    """Who does it, from where, and what: as locks name their holder and a node's record its runs."""
    return {"who": getpass.getuser(), "from": socket.gethostname(), "pid": os.getpid(), "command": command}


def record(
    fleet: Fleet,
    inventory: Inventory,
    command: str,
    done: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    reason: str = "",
) -> None:
    """Add one line to the record of each node of `done`: what was done there, as `id`, `action` and `outcome`.

    A node that can't keep it is told of by a Notice; what was done stays done.
    """
    about = {
        **actor(command),
        "run": uuid.uuid4().hex,
        "cluster": inventory.cluster,
        "inventory": inventory.path.name,
        "version": sparkops.__version__,
        "reason": reason,
    }

    def append(node: str, session: Session) -> None:
        entry = {**about, "steps": [*done[node]]}
        session.call(f"{KIND}.append", {"state_dir": fleet.targets[node].state_dir, "entry": entry}, timeout=30)

    fleet.note(done, "history-not-written", append)


def by_node(steps: Sequence[Step], results: Sequence[Result]) -> dict[str, list[dict[str, str]]]:
    """What was begun on each node: the id, the action and the outcome of every step that was not left out.

    Nothing of a node on which sparkops left nothing, so that no record is made there either.
    """
    outcomes = {result.id: result.outcome for result in results}
    bare = {step.node for step in steps if step.kind == OwnState.kind and outcomes.get(step.id) == "done"}
    found: dict[str, list[dict[str, str]]] = {}
    for step in steps:
        outcome = outcomes.get(step.id, "interrupted")
        if outcome != "not-attempted" and step.node not in bare:
            found.setdefault(step.node, []).append({"id": step.id, "action": step.action, "outcome": outcome})
    return found
