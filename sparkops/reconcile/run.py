"""The road, once: compile → observe → diff → plan, and for an apply → lock → observe again → converge → report.

`plan` and `drift` leave it at the plan; there is no second path that could disagree with the first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sparkops.compile.compiler import Compiled
from sparkops.core import events
from sparkops.core.errors import ConvergeFailed, SparkopsError
from sparkops.core.plan import Plan
from sparkops.core.report import Report
from sparkops.inventory.inventory import Inventory, Node
from sparkops.inventory.secrets import Secrets
from sparkops.nodes import bundle
from sparkops.nodes.connect import Connections
from sparkops.nodes.ssh.config import SSHConfigs
from sparkops.nodes.target import Target
from sparkops.reconcile import schedule
from sparkops.reconcile.fleet import THREADS, Fleet
from sparkops.reconcile.history import KIND, actor, by_node, record
from sparkops.reconcile.observe import FACTS, needs_facts, prepare
from sparkops.reconcile.plan_file import SavedPlan
from sparkops.reconcile.planning import View, asked, kinds_needed, look, note
from sparkops.reconcile.targets import targets
from sparkops.resources.resource import Resource

Command = Literal["plan", "drift", "apply"]


@dataclass(frozen=True, kw_only=True)
class Road:
    """What one run goes by: the compiled inventory and how to reach its nodes. `stop` is set by the first Ctrl-C.

    `replace` are the ids of things to make anew, `reason` is what the person says why; it goes into the nodes' history.
    With `prune` an apply removes what is no longer declared.
    """

    inventory: Inventory
    compiled: Compiled
    connections: Connections
    secrets: Secrets
    listener: events.Listener = events.silent
    jobs: int = THREADS
    stop: threading.Event = field(default_factory=threading.Event)
    replace: frozenset[str] = frozenset()
    reason: str = ""
    prune: bool = False

    def look(self, command: Literal["plan", "drift"]) -> Report:
        """The plan, and nothing is touched."""
        started = time.monotonic()
        resources, unprepared = prepare(self.compiled.resources)
        with self._fleet(resources) as fleet:
            view = look(self, fleet, resources, unprepared)
        return self._report(command, view.plan, started)

    def apply(self, agree: Callable[[Report], bool], saved: SavedPlan | None = None) -> Report:
        """Bring the nodes into the declared state. `agree` is shown the plan and answers whether to go on.

        With a `saved` plan nothing is begun that is not in it. Raises Stale where it no longer holds.
        """
        started = time.monotonic()
        resources, unprepared = prepare(self.compiled.resources)
        with self._fleet(resources, KIND) as fleet:
            view = look(self, fleet, resources, unprepared, acting=True)
            plan = view.plan
            if saved is not None:
                saved.refuse_other_steps(plan)
            agreed = agree(self._report("apply", plan, started))
            if not plan.steps:
                return self._report("apply", self._claim(fleet, view), started)
            if not agreed:
                return self._report("apply", plan, started, declined=True)
            touched = {step.node for step in plan.steps} | view.notes.keys()
            fleet.lock(sorted(touched - plan.held - fleet.failed.keys()), actor(self._name()))
            view = look(self, fleet, resources, unprepared, acting=True, again=True)
            again = view.plan
            if saved is not None:
                saved.refuse_other_steps(again)
            else:
                self._refuse_surprise(plan, again)
            again = note(fleet, view)
            results = schedule.run(
                again,
                view.resources,
                fleet,
                facts=view.seen.facts,
                stop=self.stop,
                listener=self.listener,
                bound=saved is not None,
                upstreams=view.upstreams,
            )
            done = by_node(again.steps, results)
            record(fleet, self.inventory, self._name(), done, reason=self.reason, listener=self.listener)
            fleet.unlock()
            stopped = any(result.outcome == "interrupted" for result in results)
            return self._report("apply", again, started, results=results, interrupted=stopped)

    def _claim(self, fleet: Fleet, view: View) -> Plan:
        """Claim what is right already. Where that can't be done it is said: the nodes are as declared all the same."""
        if not view.notes:
            return view.plan
        try:
            fleet.lock(sorted(view.notes.keys() - fleet.failed.keys()), actor(self._name()))
        except SparkopsError as error:
            return replace(view.plan, notices=(*view.plan.notices, f"not claimed yet: {error.what}"))
        plan = note(fleet, view)
        fleet.unlock()
        return plan

    def _fleet(self, resources: Sequence[Resource], *more: str) -> Fleet:
        kinds = {*more, *(resource.kind for resource in resources), *kinds_needed(self)}
        if needs_facts(resources):
            kinds.add(FACTS)
        nodes = {*asked(self.compiled), *(resource.node for resource in resources)}
        return Fleet(
            {name: target for name, target in targets(self.inventory, self.secrets).items() if name in nodes},
            cluster=self.inventory.cluster,
            connections=self.connections,
            program=bundle.kinds_bundle(kinds),
            listener=self.listener,
            jobs=self.jobs,
        )

    def _report(self, command: Command, plan: Plan, started: float, **more: Any) -> Report:
        return Report(
            command=command,
            cluster=self.inventory.cluster,
            inventory=str(self.inventory.path),
            plan=plan,
            endpoints=endpoints(self.inventory, plan.nodes),
            seconds=time.monotonic() - started,
            **more,
        )

    def _name(self) -> str:
        return f"apply {self.inventory.path.name}"

    def _refuse_surprise(self, shown: Plan, now: Plan) -> None:
        """What interrupts service and was not in the plan that was agreed to is not done."""
        agreed = {step.id for step in shown.disruptive}
        new = [step.id for step in now.disruptive if step.id not in agreed]
        if new:
            raise ConvergeFailed(
                f"the nodes changed after the plan was shown; it would now also interrupt {', '.join(new)}",
                hint="nothing was touched; run again to see the new plan",
            )


def endpoints(inventory: Inventory, nodes: Sequence[str]) -> Mapping[str, str]:
    """The OpenAI-compatible URL of each declared service that has a port, at its first node."""
    found: dict[str, str] = {}
    configs = SSHConfigs()
    for service in inventory.services.values():
        if service.state == "retired" or not service.nodes or service.nodes[0] not in nodes:
            continue
        head = service.nodes[0]
        port = inventory.variables(head, service.name).get("service", {}).get("port")
        if isinstance(port, int):
            found[service.name] = f"http://{_address(inventory.nodes[head], configs)}:{port}/v1"
    return found


def _address(node: Node, configs: SSHConfigs) -> str:
    """Where a node is found by others than SSH: an alias of SSH's configuration means nothing to them."""
    if node.connection.type == "local":
        return "localhost"
    try:
        host = configs.route(Target(name=node.name, host=node.host)).end.host
    except SparkopsError:
        host = node.host or node.name
    return f"[{host}]" if ":" in host else host
