"""`sparkops rollback`: a service back to an earlier state that was stable."""

from __future__ import annotations

import threading

import click

from sparkops.cli import options
from sparkops.cli.interrupts import interrupts
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import load
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import asking, finish, listener_for
from sparkops.cli.prompts import confirm
from sparkops.core.report import Report
from sparkops.operate.rollback import roll_back
from sparkops.operate.services import selected
from sparkops.reconcile.planning import RunOptions
from sparkops.reports.record import Record


@click.command(
    "rollback",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops rollback qwen                   to the newest generation that is not there now, or before a cut rollout
  sparkops rollback qwen --to 3            as `sparkops generations qwen` numbers them
  sparkops rollback qwen --yes -m "garbage since the new image\"""",
)
@click.argument("service")
@options.inventory
@options.extra
@click.option("--to", "number", type=click.IntRange(1), help="The generation's number; else the last")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.jobs
@options.form
@options.common
def command(common: CommonOptions, service: str, number: int | None, yes: bool, verbose: int) -> int:
    """Bring a service back to a state that was stable: its files, its image and its checkpoint as they were.

    Each engine is restarted and waited for before the next. What was there is held: the next apply does not bring it
    again until the inventory changes, or with --retry.

    Exit status 0: it is back and ready; 1: a node has no generation of that number, and nothing was touched; 2: nothing
    was done; 3: a node was silent; 4: it failed or was not attempted; 75: a lock is busy.
    """
    cluster = load(common)
    selected(cluster.inventory, (service,), ())
    record = Record.begin(cluster.inventory.cluster, "rollback")
    stop = threading.Event()
    with listener_for(common, record.write) as listener, interrupts(stop):

        def agree(report: Report) -> bool:
            question = f"This interrupts {service}. Continue?"
            return not report.plan.steps or confirm(question, yes, "interruption-unconfirmed", services=service)

        chosen = RunOptions(
            command="rollback",
            inventory=cluster.inventory,
            connections=cluster.connections,
            secrets=cluster.secrets,
            title=f"rollback {service}" + (f" --to {number}" if number else ""),
            reason=common.reason,
            agree=asking(common, listener, verbose, agree),
            listener=listener,
            jobs=common.jobs,
            stop=stop,
        )
        report = record.finish(roll_back(cluster.inventory, cluster.compiled, service, number, chosen))
    return finish(report, common, verbose=verbose)
