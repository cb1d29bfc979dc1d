"""Lines and columns for a person, with styles on a terminal. It must not know what they tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO, TypeAlias

from sparkops.reports.formatting import safe

if TYPE_CHECKING:
    from rich.console import Console

Cell: TypeAlias = "tuple[str, str] | str"


@dataclass(frozen=True, slots=True)
class Plain:
    """Where text goes without a terminal: no colours, nothing wrapped, and so nothing of rich loaded."""

    file: TextIO


class Printer:
    """Writes lines to a console."""

    def __init__(self, console: Console | Plain) -> None:
        self.console = console

    def line(self, *parts: tuple[object, str] | str, indent: int = 0) -> None:
        """One line of words, or words with a style."""
        styled = [part if isinstance(part, tuple) else (part, "") for part in parts]
        if isinstance(self.console, Plain):
            self.console.file.write(" " * indent + "".join(safe(words) for words, _ in styled) + "\n")
            return
        from rich.text import Text

        text = Text(" " * indent)
        for words, style in styled:
            text.append(safe(words), style)
        self.console.print(text, soft_wrap=True)


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
