"""What nodes say about themselves, asked in one call each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparkops.core import events
from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.states import Facts, Unknown
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.session import Session
from sparkops.nodes.target import Target
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.observe import FACTS, asked, facts_ask
from sparkops.resources.resource import unpack

GROUPS = (
    "os",
    "cpu",
    "memory",
    "disk",
    "gpu",
    "docker",
    "cdi",
    "network",
    "fabric",
    "reboot",
    "desktop",
    "firmware",
    "packages",
    "uptime",
)


def facts(
    targets: Mapping[str, Target],
    connections: Connections,
    *,
    groups: Sequence[str] = GROUPS,
    jobs: int = THREADS,
    listener: events.Listener = events.silent,
) -> dict[str, Fields | SparkopsError | Unknown]:
    """The facts of every node, by node; an error or the reason where they could not be had."""
    program = bundle.kinds_bundle([FACTS])

    def ask(node: str, session: Session) -> Facts:
        answers, _ = asked(session, [facts_ask(groups)])
        return unpack(answers.get(FACTS)) or {}

    with Fleet(targets, cluster="", connections=connections, program=program, listener=listener, jobs=jobs) as fleet:
        answers, silent = fleet.each(targets, ask)
    return {node: silent[node] if node in silent else answers[node] for node in targets}
