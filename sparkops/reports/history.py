"""The runs of `sparkops history`, as text."""

from __future__ import annotations

from collections import Counter

from sparkops.operate.history import Run
from sparkops.reports.formatting import local, names
from sparkops.reports.printer import Printer
from sparkops.reports.text import OUTCOMES


def render(run: Run, printer: Printer, *, verbose: bool) -> None:
    """One run in a line; its reason, and with `verbose` its steps, below."""
    about = run.about
    counts = Counter(str(step.get("outcome")) for step in run.steps)
    printer.line(
        (f"{local(run.time)}  ", "dim"),
        (f"{about.get('who')} from {about.get('from')}", ""),
        "  ",
        (str(about.get("command")), "bold"),
        f"  {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}",
        (f"  on {names(list(run.entries))}", "dim"),
    )
    if about.get("reason"):
        printer.line(f"“{about['reason']}”", indent=4)
    for step in run.steps if verbose else ():
        symbol, style = OUTCOMES.get(str(step.get("outcome")), ("?", "magenta"))
        printer.line((f"{symbol} ", style), f"{step.get('action')} {step.get('id')}", indent=4)
