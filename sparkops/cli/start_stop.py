"""`sparkops start`, `stop` and `restart`: whole services."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import click

from sparkops.cli import options
from sparkops.cli.interrupts import interrupts
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import emit, listener_for
from sparkops.core.report import Report
from sparkops.operate.services import chosen, selected
from sparkops.operate.start_stop import Verb, switch
from sparkops.reports.formatting import safe

OUTCOMES = "3: a node was silent; 4: it failed, with the engine's last lines; 75: a lock is busy."
NO_WAIT = click.option("--no-wait", is_flag=True, help="Only until systemd has the new process, not until it answers")


@dataclass(frozen=True, slots=True)
class Texts:
    """What one of the commands says about itself. `unchanged`: where nothing was to do."""

    help: str
    reason: str
    unchanged: str = "runs and answers already"
    example: str = "  sparkops {verb} qwen --no-wait              not until it answers"


TEXTS: dict[Verb, Texts] = {
    "start": Texts(
        f"""Start services and wait until a real completion is answered. What runs and answers is left alone.

        Exit status 0: they answer; {OUTCOMES}""",
        reason="after the memory was changed",
    ),
    "stop": Texts(
        """Stop services on all their nodes at once. The inventory still declares them running: the next apply, or a
        restart of the node, starts them again.

        Exit status 0: they are stopped; 3: a node was silent, the others are stopped; 4: it failed; 75: a lock is
        busy.""",
        reason="the memory is needed for a build",
        unchanged="is stopped already",
        example="To keep it down, declare `state: retired` in the inventory and apply.",
    ),
    "restart": Texts(
        f"""Restart services engine by engine, as `apply` changes them: running requests come to their end, within
        `rollout.drain_seconds`; the engine has to answer and to pass its gate; then the next.

        Exit status 0: they answer; {OUTCOMES}""",
        reason="after the memory was changed",
    ),
}


def _command(verb: Verb) -> click.Command:
    texts = TEXTS[verb]
    epilog = f"""\b
Examples:
  sparkops {verb} qwen
  sparkops {verb} --limit spark-01          all that is on this node
  sparkops {verb} qwen small -m "{texts.reason}"
{texts.example.format(verb=verb)}"""

    def run(common: CommonOptions, services: tuple[str, ...], no_wait: bool = False) -> int:
        return _run(verb, common, services, wait=not no_wait)

    function: Callable[..., object] = options.services(options.common(run))
    return click.command(verb, cls=WithInventory, help=texts.help, epilog=epilog)(
        function if verb == "stop" else NO_WAIT(function)
    )


def _run(verb: Verb, common: CommonOptions, services: tuple[str, ...], *, wait: bool) -> int:
    """Bring the services there and print the report; returns the exit status."""
    stop = threading.Event()
    with listener_for(common) as listener, interrupts(stop):
        made = context(common, listener)
        names = selected(made.inventory, services, common.limit)
        report = switch(
            verb,
            made.inventory,
            chosen(made.inventory, names),
            made.connections,
            wait=wait,
            reason=common.reason,
            listener=listener,
            jobs=common.jobs,
            stop=stop,
        )
    emit(report, common)
    if common.form == "text":
        _remarks(report, names)
    return report.exit_status


def _remarks(report: Report, services: tuple[str, ...]) -> None:
    """What the outcome alone does not show."""
    for node, why in report.plan.unreachable.items():
        click.echo(safe(f"{node}: {why.full}"), err=True)
    for identity, unknown in report.plan.unknown.items():
        click.echo(safe(f"? {identity}: {unknown.full}"), err=True)
    for violation in (each for each in report.plan.violations if each.blocks):
        click.echo(safe(f"✗ {violation.message.full} [{violation.id}]"), err=True)
    if not report.plan.steps and report.exit_status == 0:
        click.echo(f"{', '.join(services)} {TEXTS[report.command].unchanged}")  # type: ignore[index]
    if report.command == "stop" and report.exit_status == 0:
        click.echo("note: still declared as running; the next apply will start it again")


start, stop, restart = (_command(verb) for verb in TEXTS)
