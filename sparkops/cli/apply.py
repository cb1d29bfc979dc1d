"""`sparkops apply`: the whole road, with the question before what interrupts a service."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sparkops.cli import options
from sparkops.cli.interrupts import interrupts

if TYPE_CHECKING:
    from sparkops.compile.compiler import Compiled
    from sparkops.core.report import Report
    from sparkops.inventory.inventory import Inventory
    from sparkops.inventory.secrets import Secrets
    from sparkops.reconcile.plan_file import SavedPlan


@click.command(
    "apply",
    epilog="""\b
Examples:
  sparkops apply inventory.yml
  sparkops apply inventory.yml --yes              also what interrupts a service, unasked
  sparkops apply inventory.yml --limit spark-01 --role driver
  sparkops apply inventory.yml --replace "unit qwen.service @spark-01" -m "hung after the driver update"
  sparkops apply inventory.yml --prune            also removes what is no longer declared
  sparkops apply inventory.yml --plan plan.json   exactly what `plan -o plan.json` kept, unasked, or nothing""",
)
@options.inventory_argument
@options.selection
@options.jobs
@options.output
@click.option("--prune", is_flag=True, help="Also remove what this cluster put there and no longer declares")
@click.option("-y", "--yes", is_flag=True, help="Don't ask before steps that interrupt a service")
@click.option(
    "--plan",
    "plan",
    type=click.Path(path_type=Path),
    help="Carry out a kept plan without a question; refused where anything in it no longer holds",
)
@click.option(
    "--replace",
    multiple=True,
    metavar="ID",
    help="Do this again though it is as declared: rewrite a file, restart a unit, pull an image, verify a checkpoint",
)
@click.option("--locked", is_flag=True, help="Refuse where the lock file lacks something, instead of adding it")
@options.reason
def command(
    inventory: Path,
    yes: bool,
    prune: bool,
    plan: Path | None,
    locked: bool,
    replace: tuple[str, ...],
    reason: str,
    **given: Any,
) -> int:
    """Bring the nodes into the declared state. What is right already is not touched; a second run changes nothing.

    Ctrl-C once finishes the running steps and stops; twice leaves at once. What a node does by itself (fetching,
    pulling, building) goes on there: the same command follows it, and sparkops cancel ends it.
    """
    from sparkops.cli.printing import emit, listener_for, passwords_for, show_plan
    from sparkops.nodes.connect import Connections
    from sparkops.operate.runs import RunFolder
    from sparkops.reconcile.planning import RunOptions
    from sparkops.reconcile.replace import replaced
    from sparkops.reconcile.run import run as carry_out

    told = options.Given(**given)
    if plan is not None and replace:
        raise click.UsageError("a kept plan is carried out as it is; leave out --replace beside --plan")
    if prune and (told.limit or told.roles or plan):
        raise click.UsageError("--prune needs the whole inventory as it is now: leave out --limit, --role and --plan")
    saved, loaded, compiled, secrets = _load(plan, inventory, told, locked)
    options.refuse_errors(loaded, compiled.nodes, saved.roles if saved else told.roles)
    again = replaced(compiled.resources, replace)
    run = RunFolder.create(loaded.cluster, "apply")
    stop = threading.Event()
    with listener_for(told.form, told.no_color, run.write) as listener, interrupts(stop):

        def agree(report: Report) -> bool:
            if told.form == "text":
                with listener.paused():
                    show_plan(report, no_color=told.no_color, verbose=told.verbose)
                    return _agree(report, yes or plan is not None)
            return _agree(report, yes or plan is not None)

        chosen = RunOptions(
            command="apply",
            inventory=loaded,
            connections=Connections(passwords_for(loaded)),
            secrets=secrets,
            title=f"apply {loaded.path.name}",
            reason=reason,
            agree=agree,
            saved=saved,
            replace=again,
            prune=prune,
            whole=compiled.all_nodes,
            notices=compiled.notices,
            listener=listener,
            jobs=told.jobs,
            stop=stop,
        )
        report = carry_out(compiled.resources, chosen)
    report = run.finish(report)
    emit(report, told.form, told.output, no_color=told.no_color, verbose=told.verbose)
    return report.exit_status


def _load(
    plan: Path | None, inventory: Path, told: options.Given, locked: bool
) -> tuple[SavedPlan | None, Inventory, Compiled, Secrets]:
    """The inventory; with a kept plan, for what that selects. Raises PlanError, and Stale where it no longer holds."""
    if plan is None:
        lock: Literal["whole", "add"] = "whole" if locked else "add"
        return None, *options.load(inventory, told.extra, told.limit, told.roles, lock)
    from sparkops.operate import plans

    if told.limit or told.roles:
        raise click.UsageError("a kept plan has its own --limit and --role; leave them out beside --plan")
    saved = plans.take(plan)
    loaded, compiled, secrets = options.load(
        inventory, told.extra, saved.limit, saved.roles, "whole" if locked else "as-is"
    )
    plans.refuse_other(saved, loaded, compiled, told.extra)
    return saved, loaded, compiled, secrets


def _agree(report: Report, yes: bool) -> bool:
    from sparkops.core.errors import InventoryError
    from sparkops.reports.formatting import names

    interrupting = report.plan.disruptive
    if yes or not interrupting:
        return True
    services = names(sorted({step.service or step.id for step in interrupting}))
    if not options.is_terminal():
        raise InventoryError(
            f"this interrupts {services}, and there is no terminal to ask at",
            hint="nothing was touched; give --yes to go on without the question",
        )
    return click.confirm(f"This interrupts {services}. Go on?")
