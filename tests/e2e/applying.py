"""The road on lab nodes for a few resources: look, plan, apply; as a run does it, without an inventory."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sparkops.core.plan import Plan
from sparkops.core.report import Result
from sparkops.nodes.bundle import kinds_bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords
from sparkops.nodes.target import Target
from sparkops.reconcile import plan
from sparkops.reconcile.fleet import Fleet
from sparkops.reconcile.observe import observe
from sparkops.reconcile.planning import Planned
from sparkops.reconcile.schedule import Schedule
from sparkops.resources.resource import Resource
from tests.lab.lab import Lab


class Applying:
    """Plans and applies over one fleet of sessions."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def plan(self, *resources: Resource) -> Plan:
        seen = observe(self.fleet, resources)
        self.facts = seen.facts
        return plan.compare(resources, seen, today=datetime.date(2026, 1, 1))

    def apply(self, *resources: Resource) -> tuple[Result, ...]:
        made = self.plan(*resources)
        assert not made.unknown, made.unknown
        assert not made.unreachable, made.unreachable
        planned = Planned(plan=made, resources=resources, facts=self.facts)
        return Schedule(planned, self.fleet, stop=threading.Event()).run()

    def settle(self, *resources: Resource) -> tuple[Result, ...]:
        """Apply, and see that all went well and that nothing is left to do."""
        results = self.apply(*resources)
        assert [each for each in results if each.outcome != "done"] == []
        left = self.plan(*resources)
        assert left.steps == () and not left.unknown
        return results


@contextmanager
def applying(lab: Lab, nodes: Sequence[str], *kinds: str) -> Iterator[Applying]:
    """Sessions on these nodes, with the worker halves of these kinds."""
    targets = {
        name: Target(name=name, user="root", ssh_config=lab.ssh_config, known_hosts=lab.known_hosts) for name in nodes
    }
    connections = Connections(Passwords())
    with Fleet(targets, cluster="tests", connections=connections, program=kinds_bundle(kinds)) as fleet:
        yield Applying(fleet)
