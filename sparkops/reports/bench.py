"""A measurement of a service as JSON, as a table with bars, and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from sparkops.core.errors import SparkopsError
from sparkops.core.states import Unknown
from sparkops.operate.measuring.bench import SCHEMA, Bench, Cell
from sparkops.reports.printer import Cell as Column
from sparkops.reports.printer import Printer, table

BAR = 24


def as_json(found: Bench) -> dict[str, object]:
    """`sparkops.bench/1`; documented in docs/formats.md."""
    return {
        "schema": SCHEMA,
        "cluster": found.cluster,
        "service": found.service,
        "tool": found.tool or None,
        "time": found.time,
        "tokens": found.tokens,
        "exit_status": found.exit_status,
        "engines": [
            {
                "node": engine.node,
                "cells": [_cell(cell) for cell in engine.cells],
                "findings": [each.as_json() for each in engine.findings],
                "causes": [each.as_json() for each in engine.causes],
                "reason": engine.reason.as_json() if engine.reason else None,
                "told": list(engine.told),
            }
            for engine in found.engines
        ],
    }


def _cell(cell: Cell) -> dict[str, object]:
    unknown = isinstance(cell.acceptance, Unknown)
    return {
        "concurrency": cell.concurrency,
        "context": cell.context,
        "prompt_tokens": cell.prompt_tokens,
        "first_token_seconds": cell.first,
        "decode_tokens_per_second": cell.decode,
        "all_tokens_per_second": cell.together,
        "acceptance": None if unknown else cell.acceptance,
        "acceptance_reason": cell.acceptance.as_json() if isinstance(cell.acceptance, Unknown) else None,
        "tokens_per_step": cell.tokens_per_step,
        "ceiling_tokens_per_second": cell.ceiling,
        "ceiling_share": cell.share,
        "hardware": dict(cell.hardware),
        "gpu_others": list(cell.others) if cell.others is not None else None,
        "reason": cell.reason.as_json() if cell.reason else None,
    }


def render(found: Bench, printer: Printer) -> None:
    """A line for each cell and then what was found, engine by engine."""
    cells = [cell for engine in found.engines for cell in engine.cells]
    most = max((cell.concurrency * cell.decode for cell in cells if cell.decode), default=0.0)
    for engine in found.engines:
        if len(found.engines) > 1:
            printer.line(f"{found.service} @{engine.node}")
        if engine.cells:
            _table(engine.cells, most, printer)
        if engine.reason is not None:
            printer.line((f"✗ {engine.reason.full}", "red"))
        for each in engine.findings:
            printer.line((f"✗ {each.full}", "red"))
        for each in engine.causes:
            printer.line((f"  likely: {each.full}", "yellow"))


def _table(cells: Sequence[Cell], most: float, printer: Printer) -> None:
    """The bars are shares of `most` tokens a second."""
    rows: list[list[Column] | str] = []
    for cell in cells:
        speed = cell.concurrency * cell.decode if cell.decode else 0.0
        rows.append(
            [
                str(cell.concurrency),
                str(cell.context),
                "-" if cell.first is None else f"{cell.first:.2f} s",
                "-" if cell.decode is None else f"{cell.decode:.1f}",
                "-" if cell.together is None else f"{cell.together:.1f}",
                "-" if isinstance(cell.acceptance, Unknown) else f"{cell.acceptance:.0%}",
                "-" if cell.share is None else f"{cell.share:.0%}",
                _reading(cell, "sm_clock_mhz", "MHz"),
                _reading(cell, "power_watts", "W"),
                "█" * round(BAR * speed / most) if most else "",
            ]
        )
        rows += [f"✗ {cell.reason.full}"] if cell.reason else []
    head = (
        "STREAMS",
        "CONTEXT",
        "FIRST TOKEN",
        "DECODE/S",
        "ALL/S",
        "ACCEPTED",
        "OF CEILING",
        "SM CLOCK",
        "GPU POWER",
        "",
    )
    table(printer, head, rows)


def _reading(cell: Cell, name: str, unit: str) -> str:
    value = cell.hardware.get(name)
    return f"{value:.0f} {unit}" if isinstance(value, (int, float)) else "-"


def plot(found: Bench, path: Path) -> None:
    """Decode speed of all streams over the context, a line for each engine and concurrency. Raises SparkopsError."""
    try:
        figure: Any = import_module("matplotlib.figure").Figure(figsize=(7, 4.5), layout="constrained")
    except ImportError:
        raise SparkopsError.of("bench-plot-missing") from None
    axes = figure.subplots()
    for engine in found.engines:
        for streams in dict.fromkeys(cell.concurrency for cell in engine.cells):
            cells = [cell for cell in engine.cells if cell.concurrency == streams and cell.decode]
            speeds = [streams * (cell.decode or 0.0) for cell in cells]
            label = f"{streams} at once" + (f", {engine.node}" if len(found.engines) > 1 else "")
            axes.plot([cell.context for cell in cells], speeds, marker="o", label=label)
    nodes = ", ".join(engine.node for engine in found.engines)
    axes.set(xlabel="tokens of context", ylabel="tokens per second, all streams", title=f"{found.service} on {nodes}")
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise SparkopsError.of("report-not-written", where=str(path), reason=str(error)) from None
