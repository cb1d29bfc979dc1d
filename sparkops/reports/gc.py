"""What `sparkops gc` found and removed, as text."""

from __future__ import annotations

from sparkops.operate.gc import Reclaimable
from sparkops.reports.formatting import size
from sparkops.reports.table import Cell, table
from sparkops.reports.text import Printer


def render(found: Reclaimable, printer: Printer) -> None:
    """What can be removed, and what is kept for which reason."""
    rows: list[list[Cell] | str] = []
    for item in found.items:
        style = "dim" if item.kept else "bold"
        rows.append([item.node, item.kind, (size(item.bytes), style), (item.name, style)])
        rows += [f"kept: {item.kept}"] if item.kept else [item.note] if item.note else []
    if rows:
        table(printer, ("NODE", "", "BYTES", ""), rows)
    total = sum(item.bytes for item in found.going)
    unknown = sum(item.bytes for item in found.items if item.unknown)
    text = f"{size(total)} can be freed" if found.going else "nothing to free"
    printer.line(text + (f"; {size(unknown)} more may be in use (could not be checked)" if unknown else ""))


def render_outcome(found: Reclaimable, printer: Printer) -> None:
    """What became of each removal."""
    for item, outcome in found.outcomes.items():
        good = outcome == "done"
        mark = ("✓ ", "green") if good else ("✗ ", "red")
        printer.line(mark, f"{item.kind} {item.name} @{item.node}" + ("" if good else f": {outcome}"))
    freed = [item.bytes for item, outcome in found.outcomes.items() if outcome == "done"]
    if freed:
        printer.line(f"{size(sum(freed))} freed")
