"""Columns for a screen: cells with a style, as wide as their widest. It must not know what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from sparkops.reports.formatting import safe
from sparkops.reports.text import Printer

Cell: TypeAlias = "tuple[str, str] | str"


def table(printer: Printer, head: Sequence[str], rows: Sequence[Sequence[Cell] | str]) -> None:
    """Print rows below their heads. A row that is a text is a remark on the row above it and takes the whole line."""
    grid = [
        [cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows if not isinstance(row, str)
    ]
    widths = [max([len(title), *(len(safe(row[column][0])) for row in grid)]) + 2 for column, title in enumerate(head)]
    printer.line(("".join(title.ljust(width) for title, width in zip(head, widths, strict=True)).rstrip(), "dim"))
    cells = iter(grid)
    for row in rows:
        if isinstance(row, str):
            printer.line((row, "dim"), indent=2)
            continue
        padded = [(safe(text).ljust(width), style) for (text, style), width in zip(next(cells), widths, strict=True)]
        padded[-1] = (padded[-1][0].rstrip(), padded[-1][1])
        printer.line(*padded)
