"""The long jobs that run on nodes by themselves (fetch, pull, build): seen, and ended between two atomic steps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sparkops.core.errors import SparkopsError
from sparkops.core.wording import Message
from sparkops.inventory.inventory import Inventory
from sparkops.nodes.session import Session
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.history import record

PATIENCE = 20.0
"""Seconds that a job gets to come to the end of its atomic step."""
POLL = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJob:
    """A running job. `key` is what it works on (`checkpoint /models/x`), `progress` the latest it said."""

    node: str
    key: str
    since: float
    progress: Mapping[str, object] = field(compare=False)


def running(fleet: Fleet, nodes: Iterable[str]) -> tuple[list[NodeJob], dict[str, SparkopsError]]:
    """The jobs of these nodes; and what kept nodes from answering."""
    answers, silent = fleet.each(nodes, lambda node, session: session.call("jobs.list", timeout=30))
    found = [
        NodeJob(node=node, key=str(job["key"]), since=float(job.get("since") or 0), progress=job.get("progress") or {})
        for node, told in answers.items()
        for job in told
    ]
    return found, silent


def cancel(
    fleet: Fleet,
    inventory: Inventory,
    jobs: Sequence[NodeJob],
    *,
    reason: str = "",
) -> dict[NodeJob, Message | None]:
    """End these jobs and wait until they are gone: for each why it is not, None where it is."""

    def end(node: str, session: Session) -> dict[NodeJob, Message | None]:
        mine = [job for job in jobs if job.node == node]
        for job in mine:
            session.call("jobs.cancel", {"key": job.key}, timeout=30)
        deadline = time.monotonic() + PATIENCE
        while True:
            alive = {str(each["key"]) for each in session.call("jobs.list", timeout=30)}
            left = [job for job in mine if job.key in alive]
            if not left or time.monotonic() > deadline:
                break
            time.sleep(POLL)
        late = Message.of("job-not-ended", seconds=PATIENCE)
        return {job: late if job in left else None for job in mine}

    nodes = list(dict.fromkeys(job.node for job in jobs))
    answers, silent = fleet.each(nodes, end)
    found = {job: outcome for each in answers.values() for job, outcome in each.items()}
    found |= {job: silent[job.node].message for job in jobs if job.node in silent}
    done: dict[str, list[dict[str, str]]] = {}
    for job, outcome in found.items():
        step = {"id": job.key, "action": "cancel", "outcome": "failed" if outcome else "done"}
        done.setdefault(job.node, []).append(step)
    record(fleet, inventory, "cancel", done, reason=reason)
    return found
