"""Where reports and progress go: standard output or a file, colours or none, bars or lines."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparkops.reports import text

if TYPE_CHECKING:
    from rich.console import Console

    from sparkops.core import events
    from sparkops.core.report import Report
    from sparkops.inventory.inventory import Inventory
    from sparkops.nodes.passwords import Passwords
    from sparkops.reports.plain_progress import Silent


def console(no_color: bool, *, error: bool = False) -> Console | text.Plain:
    """A console without rich's own guessing of markup and highlights; plain where nobody wants colours.

    rich is loaded only for a terminal, or for what claims to be one (rich knows FORCE_COLOR and TTY_COMPATIBLE).
    """
    file = sys.stderr if error else sys.stdout
    claims = any(os.environ.get(name) for name in ("FORCE_COLOR", "TTY_COMPATIBLE"))
    if not (file.isatty() or claims):
        return text.Plain(file)

    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            """Let the command line say how that ends; rich would exit with 1, "the input is wrong"."""
            raise BrokenPipeError

    plain = no_color or bool(os.environ.get("NO_COLOR"))
    return Ours(no_color=plain, highlight=False, markup=False, emoji=False, stderr=error)


def listener_for(form: str, no_color: bool, *others: events.Listener) -> Silent:
    """Bars on a terminal, lines without one, silence for JSON."""
    from sparkops.reports.plain_progress import Lines, Silent

    if form != "text":
        return Silent(others)
    shown = console(no_color, error=True)
    if not isinstance(shown, text.Plain) and shown.is_terminal and sys.stderr.isatty():
        from sparkops.reports.progress import Live

        return Live(shown, others)
    return Lines(lambda line: print(line, file=sys.stderr, flush=True), others)


def passwords_for(inventory: Inventory) -> Passwords:
    """Passwords asked for at the terminal, where there is one."""
    from sparkops.nodes.passwords import Passwords, terminal

    return Passwords(terminal(), tuple(inventory.nodes))


def show_plan(report: Report, *, no_color: bool, verbose: int) -> None:
    """The plan of an apply, before the question."""
    text.Printer(console(no_color), verbose=verbose).plan(report)
    sys.stdout.flush()


def emit(report: Report, form: str, output: Path | None, *, no_color: bool, verbose: int) -> None:
    """Print the report, or write it to a file."""
    if output == Path("-"):
        output = None
    if form == "json":
        from sparkops.reports.json import as_json

        words = json.dumps(as_json(report), indent=1) + "\n"
    elif output is not None:
        words = "\n".join(text.lines(report)) + "\n"
    else:
        text.render(report, console(no_color), verbose=verbose)
        sys.stdout.flush()
        return
    if output is None:
        sys.stdout.write(words)
        sys.stdout.flush()
    else:
        output.write_text(words, encoding="utf-8")
