"""What `sparkops gc` found and removed, as JSON and as text."""

from __future__ import annotations

from typing import Any

from sparkops.core.wording import size
from sparkops.operate.gc import Reclaimable
from sparkops.reports import schemas
from sparkops.reports.table import Cell, table
from sparkops.reports.text import Printer


def as_json(found: Reclaimable) -> dict[str, Any]:
    """`sparkops.gc/1`; documented in docs/formats.md."""
    return {
        "schema": schemas.GC,
        "cluster": found.cluster,
        "exit_status": found.exit_status,
        "bytes": sum(item.bytes for item in found.going),
        "freed_bytes": sum(item.bytes for item, outcome in found.outcomes.items() if outcome == "done"),
        "items": [
            {
                "node": item.node,
                "kind": item.kind,
                "name": item.name,
                "bytes": item.bytes,
                "kept": item.kept,
                "unknown": item.unknown,
                "note": item.note,
                "outcome": found.outcomes.get(item),
            }
            for item in found.items
        ],
        "unreachable": dict(found.silent),
    }


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
