"""What `start`, `stop` and `restart` share."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli.interrupts import interrupts

if TYPE_CHECKING:
    from sparkops.core.report import Report
    from sparkops.operate.start_stop import Verb

NOTHING = {"start": "runs and answers already", "stop": "is stopped already"}


no_wait = click.option("--no-wait", is_flag=True, help="Only until systemd has the new process, not until it answers")


def run(
    verb: Verb,
    *,
    services: tuple[str, ...],
    inventory: Path,
    limit: tuple[str, ...],
    extra: tuple[tuple[str, str], ...],
    reason: str,
    jobs: int,
    form: str,
    no_color: bool,
    wait: bool = True,
) -> int:
    """Switch services and print what came of it; returns the exit status."""
    from sparkops.cli.printing import emit, listener_for, passwords_for
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.services import chosen, selected
    from sparkops.operate.start_stop import switch

    loaded = load(inventory, extra=extra)
    meant = selected(loaded, services, limit)
    stop = threading.Event()
    with listener_for(form, no_color) as listener, interrupts(stop):
        report = switch(
            verb,
            loaded,
            chosen(loaded, meant),
            Connections(passwords_for(loaded)),
            wait=wait,
            reason=reason,
            listener=listener,
            jobs=jobs,
            stop=stop,
        )
    emit(report, form, None, no_color=no_color, verbose=0)
    if form == "text":
        _tell(report, meant)
    return report.exit_status


def _tell(report: Report, services: tuple[str, ...]) -> None:
    """What the outcome alone does not say."""
    from sparkops.reports.formatting import safe

    for node, why in report.plan.unreachable.items():
        click.echo(safe(f"{node}: {why}"), err=True)
    for identity, unknown in report.plan.unknown.items():
        click.echo(safe(f"? {identity}: {unknown.why}"), err=True)
    if not report.plan.steps and report.exit_status == 0:
        click.echo(f"{', '.join(services)} {NOTHING[report.command]}")
    if report.command == "stop" and report.exit_status == 0:
        click.echo("the inventory still declares it running: drift says so, and the next apply starts it again")
