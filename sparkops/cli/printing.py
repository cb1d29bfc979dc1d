"""Where reports and progress go: standard output or a file, colours or none, bars or lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from sparkops.cli.process import MACHINE
from sparkops.core import named_file
from sparkops.core.errors import SparkopsError
from sparkops.core.wording import Message
from sparkops.reports.formatting import safe
from sparkops.reports.printer import Plain, Printer

if TYPE_CHECKING:
    from rich.console import Console

    from sparkops.cli.options import CommonOptions
    from sparkops.core import events
    from sparkops.core.report import Report
    from sparkops.reports.plain_progress import Lines, Silent


def console(no_color: bool, *, error: bool = False) -> Console | Plain:
    """A console without rich's own guessing of markup and highlights; plain where nobody wants colours.

    rich is imported only for a terminal, or for what claims to be one (rich knows FORCE_COLOR and TTY_COMPATIBLE):
    a check of one node without a terminal, 0.55 s, would take a tenth longer with it.
    """
    file = sys.stderr if error else sys.stdout
    claims = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    if not (file.isatty() or claims):
        return Plain(file)

    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            """Let the command line say how that ends; rich would exit with 1, "the input is wrong"."""
            raise BrokenPipeError

    plain = no_color or bool(os.environ.get("NO_COLOR"))
    return Ours(no_color=plain, highlight=False, markup=False, emoji=False, stderr=error)


def printer_for(no_color: bool) -> Printer:
    """A printer to standard output."""
    return Printer(console(no_color))


def lines(*others: events.Listener) -> Lines:
    """Progress as lines on standard error."""
    from sparkops.reports.plain_progress import Lines  # nor does it need events

    return Lines(lambda line: print(line, file=sys.stderr, flush=True), others)


def listener_for(common: CommonOptions, *others: events.Listener) -> Silent:
    """Bars on a terminal, lines without one, silence for JSON."""
    from sparkops.reports.plain_progress import Silent

    if common.form != "text":
        return Silent(others)
    shown = console(common.no_color, error=True)
    if not isinstance(shown, Plain) and shown.is_terminal and sys.stderr.isatty():
        from sparkops.reports.progress import Live  # it imports rich

        return Live(shown, others)
    return lines(*others)


def echo_unreachable(reasons: Mapping[str, Message]) -> None:
    """Why nodes did not answer, on standard error."""
    for node, reason in reasons.items():
        click.echo(safe(f"{node}: {reason.full}"), err=True)


def show_json(document: object) -> None:
    """One document on standard output."""
    click.echo(json.dumps(document, indent=1))


def answer(
    common: CommonOptions,
    document: object,
    render: Callable[[Printer], None],
    unreachable: Mapping[str, Message] = MappingProxyType({}),
) -> None:
    """The answer of a command: the document as JSON; as text what `render` prints, and which nodes are silent."""
    if common.form == "json":
        show_json(document)
    else:
        render(printer_for(common.no_color))
        echo_unreachable(unreachable)


def show_plan(report: Report, common: CommonOptions, verbose: int) -> None:
    """The plan of an apply, before the question."""
    from sparkops.reports.text import ReportPrinter

    ReportPrinter(console(common.no_color), verbose=verbose).plan(report)
    sys.stdout.flush()


def asking(
    common: CommonOptions, listener: Silent, verbose: int, agree: Callable[[Report], bool]
) -> Callable[[Report], bool]:
    """`agree`, with the plan shown before it."""

    def asked(report: Report) -> bool:
        with listener.paused():
            if common.form == "text":
                show_plan(report, common, verbose)
            return agree(report)

    return asked


def told_of(report: Report) -> None:
    """What went wrong with the record of a run, on standard error."""
    for each in report.unrecorded:
        click.echo(safe(f"warning: {each.full}"), err=True)


def emit(report: Report, common: CommonOptions, output: Path | None = None, verbose: int = 0) -> None:
    """Print the report, or write it to a file."""
    from sparkops.reports.formats import rendered  # what prints a short answer needs none of the formats

    if output is not None and output != Path("-"):
        named_file.write(output, rendered(report, common.form))
    elif common.form == "text":
        from sparkops.reports.text import render

        render(report, console(common.no_color), verbose=verbose)
        sys.stdout.flush()
    else:
        sys.stdout.write(rendered(report, common.form))
        sys.stdout.flush()


def finish(report: Report, common: CommonOptions, output: Path | None = None, verbose: int = 0) -> int:
    """Print the report, and write the files of --report; returns the exit status."""
    told_of(report)
    emit(report, common, output, verbose)
    return write_reports(report, common)


def write_reports(report: Report, common: CommonOptions) -> int:
    """Write the report in each format of --report to its file, all that can be; what can't is told.

    The exit status: the report's, or 74 where that is 0 and a file is missing.
    """
    from sparkops.reports.formats import rendered

    lost = False
    for form, path in common.reports:
        try:
            named_file.write(path, rendered(report, form))
        except OSError as error:
            lost = True
            told = SparkopsError.of("report-not-written", where=str(path), reason=error.strerror or str(error))
            click.echo(f"error[{told.id}]: {safe(told)}", err=True)
    return MACHINE if lost and report.exit_status == 0 else report.exit_status
