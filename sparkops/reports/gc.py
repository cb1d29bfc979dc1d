"""What `sparkops gc` found and removed, as JSON and as text."""

from __future__ import annotations

from sparkops.core.wording import encoded, size
from sparkops.operate.gc import Reclaimable
from sparkops.reports import schemas
from sparkops.reports.jobs import outcome_of
from sparkops.reports.printer import Cell, Printer, table


def as_json(found: Reclaimable) -> dict[str, object]:
    """`sparkops.gc/2`; documented in docs/formats.md."""
    return {
        "schema": schemas.GC,
        "cluster": found.cluster,
        "exit_status": found.exit_status,
        "bytes": sum(item.bytes for item in found.going),
        "freed_bytes": sum(item.bytes for item, outcome in found.outcomes.items() if not outcome),
        "items": [{**encoded(item), **outcome_of(item, found.outcomes)} for item in found.items],
        "unreachable": encoded(found.silent),
    }


def render(found: Reclaimable, printer: Printer) -> None:
    """What can be removed, and what is kept for which reason."""
    rows: list[list[Cell] | str] = []
    for item in found.items:
        style = "dim" if item.kept else "bold"
        rows.append([item.node, item.kind, (size(item.bytes), style), (item.name, style)])
        rows += [f"kept: {item.kept.text}"] if item.kept else [item.note.text] if item.note else []
    if rows:
        table(printer, ("NODE", "", "BYTES", ""), rows)
    total = sum(item.bytes for item in found.going)
    unknown = sum(item.bytes for item in found.items if item.unknown)
    text = f"{size(total)} can be freed" if found.going else "nothing to free"
    printer.line(text + (f"; {size(unknown)} more may be in use (could not be checked)" if unknown else ""))


def render_outcome(found: Reclaimable, printer: Printer) -> None:
    """What became of each removal."""
    for item, outcome in found.outcomes.items():
        mark = ("✗ ", "red") if outcome else ("✓ ", "green")
        printer.line(mark, f"{item.kind} {item.name} @{item.node}" + (f": {outcome.text}" if outcome else ""))
    freed = [item.bytes for item, outcome in found.outcomes.items() if not outcome]
    if freed:
        printer.line(f"{size(sum(freed))} freed")
