"""`sparkops remove`: take back what was put on nodes, or what belongs to services."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import click

from sparkops.cli import options
from sparkops.cli.interrupts import interrupts
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import asking, emit, listener_for, show_plan, told_of, write_reports
from sparkops.cli.prompts import confirm
from sparkops.core.report import Report
from sparkops.operate.remove import remove
from sparkops.reconcile.removal import kinds_of
from sparkops.reports.formatting import count, names
from sparkops.reports.record import Record

HELP = {
    "--packages": "Also packages that sparkops installed",
    "--users": "Also accounts that sparkops made; homes stay",
    "--sysctl": "Also kernel parameters that sparkops wrote; the running values stay until a reboot",
    "--mounts": "Also mounts that sparkops made",
    "--checkpoints": "Also checkpoints that nothing else uses",
    "--images": "Also images that nothing else uses",
}


def _asking(function: Callable[..., object]) -> Callable[..., object]:
    """An option for each of what stays unless it is asked for."""
    for option, text in reversed(HELP.items()):
        function = click.option(option, is_flag=True, help=text)(function)
    return function


@click.command(
    "remove",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops remove qwen --check             what would go, what would stay and why
  sparkops remove qwen                     the service on all its nodes, after a question
  sparkops remove spark-01 --checkpoints --images -m "sold"
  sparkops remove spark-01 --check --format json    exit status 2: there is something to remove""",
)
@click.argument("names", nargs=-1, required=True, metavar="NODE|SERVICE…")
@options.inventory
@options.extra
@_asking
@click.option("--check", is_flag=True, help="Only show what would go and what would stay")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.jobs
@options.form
@options.common
def command(common: CommonOptions, names: tuple[str, ...], check: bool, yes: bool, verbose: int, **asked: bool) -> int:
    """Take back what sparkops put on nodes, by what the nodes' own records say, not by the inventory.

    Units are stopped and removed, then files, links and directories, each only while it is what sparkops put there.
    What was there before, what was edited since, and what another cluster shares stays, and is named with its reason.
    Of a whole node sparkops' own folder goes last, where no cluster has anything left there.

    Exit status 0: done, or nothing to remove; 2: with --check something to remove, else the answer was no; 3: a node
    was silent; 4: a removal failed; 75: a lock is busy. The same command resumes.
    """
    kinds = kinds_of([option for option in HELP if asked[option.removeprefix("--")]])
    stop = threading.Event()
    made = context(common, stop=stop)
    record = None if check else Record.begin(made.inventory.cluster, "remove")
    with listener_for(common, *([record.write] if record else [])) as listener, interrupts(stop):
        agree = asking(common, listener, verbose, lambda report: _agree(report, yes))
        made = dataclasses.replace(made, listener=listener)
        report = remove(made, names, kinds=kinds, agree=None if check else agree)
    if record is not None:
        report = record.finish(report)
        told_of(report)
    if check and common.form == "text":
        show_plan(report, common, verbose)
    elif common.form != "text" or report.results or report.declined:
        emit(report, common, None, verbose)
    return write_reports(report, common)


def _agree(report: Report, yes: bool) -> bool:
    plan = report.plan
    if not plan.steps:
        return True
    interrupted = sorted({step.service or step.id for step in plan.disruptive})
    what = f"{count(len(plan.steps), 'thing')} from {names(sorted({step.node for step in plan.steps}))}"
    question = f"Remove {what}?" + (f" This interrupts {names(interrupted)}." if interrupted else "")
    return confirm(question, yes, "removal-unconfirmed", what=what)
