"""sparkops as a library: an inventory is loaded, and linted, fitted, planned, looked at and applied by methods of it.

The commands are callers of this. Nothing here prints, asks a person by itself or ends the process: what goes wrong is
raised as a SparkopsError, what happens meanwhile goes to a listener.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sparkops.core import events
from sparkops.core.report import Report
from sparkops.inventory.inventory import Inventory
from sparkops.inventory.load import Extra
from sparkops.inventory.load import load as read
from sparkops.inventory.secrets import Secrets
from sparkops.nodes.connect import Connections
from sparkops.nodes.passwords import Passwords

if TYPE_CHECKING:
    from sparkops.compile.compiler import Compiled
    from sparkops.fit.fit import Fit, NotEvaluated, Question
    from sparkops.lint.check import Finding
    from sparkops.models.invocation import Ask
    from sparkops.reconcile.fleet import Fleet
    from sparkops.reconcile.plan_file import SavedPlan
    from sparkops.reconcile.planning import RunOptions

JOBS = 64
"""Nodes at once, where nobody says otherwise."""
Agree: TypeAlias = Callable[[Report], bool]
"""Is shown the report of what would be done and says whether to do it."""


def load(
    path: Path | str = "inventory.yml",
    *,
    extra: Extra = (),
    limit: Sequence[str] = (),
    roles: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    jobs: int = JOBS,
    ask: Callable[[str], str] | None = None,
) -> Cluster:
    """The cluster that an inventory declares. Offline; raises InventoryError with every fault of the file.

    `extra` are pairs like ("service.port", "8001"), values in YAML; `limit` and `roles` leave everything else out;
    `shard` is the part of the nodes to work on, by number from 1, and of how many; `jobs`: nodes at once. `ask` is
    given a prompt and returns a password; without it none is asked for.
    """
    inventory = read(path, extra=extra, shard=shard)
    connections = Connections(Passwords(ask, tuple(inventory.nodes)))
    return Cluster(
        inventory=inventory,
        connections=connections,
        extra=tuple(extra),
        limit=tuple(limit),
        roles=tuple(roles),
        jobs=jobs,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """An inventory, what of it is selected, and the way to its nodes. See `load`.

    Runs that look at nodes or change them are kept on this machine; a report's `unrecorded` says why one is not.
    """

    inventory: Inventory
    connections: Connections = field(repr=False)
    extra: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    limit: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    jobs: int = JOBS
    secrets: Secrets = field(default_factory=Secrets, repr=False)

    @cached_property
    def compiled(self) -> Compiled:
        """What is declared for the selected nodes. Raises InventoryError with every fault of roles and their use."""
        from sparkops.compile.compiler import compile_inventory

        return compile_inventory(
            self.inventory, limit=self.limit or None, roles=self.roles or None, secrets=self.secrets
        )

    def lint(self, *, ask: Ask | None = None) -> list[Finding]:
        """What would go wrong, the worst first, of all services of the inventory. No node is asked.

        `ask` reads a model that is in no knowledge from a hub.
        """
        from sparkops.lint.declared import lint_inventory

        return lint_inventory(self.inventory, date.today(), ask=ask)

    def fit(
        self, service: str | None = None, *, question: Question | None = None, ask: Ask | None = None
    ) -> dict[str, Fit | NotEvaluated]:
        """What each service (or one) needs of memory, and what then fits. No node is asked. Raises InventoryError."""
        from sparkops.fit.services import fit_services

        return fit_services(self.inventory, service, question, ask)

    def plan(self, *, listener: events.Listener = events.silent) -> Report:
        """What `apply` would change; nothing is touched, and the run is not kept.

        Raises LintError for what is known to fail, SparkopsError.
        """
        from sparkops.reconcile.run import run
        from sparkops.reports.record import with_past

        self._refuse_errors(self.roles)
        return with_past(run(self.compiled.resources, self._options("plan", listener=listener)))

    def drift(
        self, *, upstream: bool = False, fleet: Fleet | None = None, listener: events.Listener = events.silent
    ) -> Report:
        """What differs from the declaration; nothing is touched. Raises SparkopsError.

        `upstream` also asks registries and hubs what moved since it was locked. A `fleet` (see `fleet`) keeps its
        connections for the next look.
        """
        from sparkops.reconcile.run import run
        from sparkops.reports.record import Record

        cluster = self._locked("upstream") if upstream else self
        report = run(cluster.compiled.resources, cluster._options("drift", listener=listener), fleet)
        return Record(report.cluster, "drift").finish(report)

    def fleet(self) -> Fleet:
        """Connections for several looks of `drift`, opened at the first; a context manager that closes them."""
        from sparkops.reconcile.run import fleet_of

        return fleet_of(self.compiled.resources, self._options("drift"))

    def apply(
        self,
        agree: Agree,
        *,
        saved: SavedPlan | None = None,
        replace: Sequence[str] = (),
        prune: bool = False,
        retry: bool = False,
        locked: bool = False,
        reason: str = "",
        listener: events.Listener = events.silent,
        stop: threading.Event | None = None,
    ) -> Report:
        """Bring the nodes into the declared state, where `agree` answers yes to what would be done.

        `saved`: exactly that plan, or nothing; `replace`: ids of things to make again; `prune`: also remove what is
        no longer declared; `retry`: try once more what a rollout has taken back; `locked`: refuse where the lock file
        is not whole, instead of completing it; `reason` goes into the nodes' history. `stop`, once set, ends the run
        after the running steps. Raises LintError, LockBusy, Stale and StateFolderUnusable: nothing was changed then;
        ConvergeFailed and other SparkopsError.
        """
        from sparkops.operate import plans
        from sparkops.operate.rollback import return_failed
        from sparkops.reconcile.plan import replaced
        from sparkops.reconcile.run import run
        from sparkops.reports.record import Record

        lock: Literal["whole", "add", "as-is"] = "whole" if locked else "add" if saved is None else "as-is"
        cluster = self._locked(lock)
        if saved is not None:
            plans.refuse_other(saved, cluster.inventory, cluster.compiled, self.extra)
        cluster._refuse_errors(self.roles)
        again = replaced(cluster.compiled.resources, replace)
        record = Record.begin(cluster.inventory.cluster, "apply")

        def kept(event: events.Event) -> None:
            record.write(event)
            listener(event)

        options = cluster._options(
            "apply",
            title=f"apply {cluster.inventory.path.name}",
            reason=reason,
            agree=agree,
            saved=saved,
            replace=again,
            prune=prune,
            retry=retry,
            listener=kept,
            stop=stop or threading.Event(),
        )
        resources = cluster.compiled.resources
        return record.finish(return_failed(run(resources, options), options))

    def _options(self, command: Literal["plan", "drift", "apply"], **more: Any) -> RunOptions:
        from sparkops.reconcile.planning import RunOptions

        return RunOptions(
            command=command,
            inventory=self.inventory,
            connections=self.connections,
            secrets=self.secrets,
            whole=self.compiled.whole,
            notices=self.inventory.notices,
            jobs=self.jobs,
            **more,
        )

    def _locked(self, lock: Literal["as-is", "add", "whole", "upstream"]) -> Cluster:
        """With what its lock file lacks added, refused where that is not whole, or with what moved upstream since."""
        if lock == "as-is":
            return self
        from sparkops.operate.lock import complete, upstream

        inventory = self.inventory
        if lock == "upstream":
            told = upstream(inventory, self.secrets)
        else:
            inventory, told = complete(inventory, self.secrets, add=lock == "add", limit=self.limit)
        return dataclasses.replace(self, inventory=dataclasses.replace(inventory, notices=(*inventory.notices, *told)))

    def _refuse_errors(self, roles: Sequence[str]) -> None:
        """What lint and fit know to fail on these nodes is not tried. Raises LintError; silent without a service."""
        if roles and "service" not in roles:
            return
        from sparkops.fit import services
        from sparkops.lint.declared import refuse

        refuse(self.inventory, date.today(), self.compiled.nodes)
        services.refuse(self.inventory, date.today(), self.compiled.nodes)
