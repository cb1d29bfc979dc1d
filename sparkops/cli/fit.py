"""`sparkops fit`: what a serve line needs and what then fits, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparkops.cli.serve_line import serve_line

if TYPE_CHECKING:
    from sparkops.fit.fit import Fit, NotEvaluated
    from sparkops.models.invocation import Invocation


@click.command(
    "fit",
    epilog="""\b
Examples:
  sparkops fit --serve 'vllm serve Qwen3.5-122B-A10B --max-model-len 131072 --max-num-seqs 4' --engine 0.26.0
  sparkops fit --serve - --engine 0.33.0 --solve context < line.txt
  sparkops fit inventory.yml qwen""",
)
@serve_line
@click.argument("service", required=False)
@click.option("--streams", type=click.IntRange(1), help="Ask for so many streams instead of max-num-seqs")
@click.option("--context", type=click.IntRange(1), help="Ask for streams of so many tokens instead of max-model-len")
@click.option("--solve", type=click.Choice(["streams", "context"]), help="The most streams, or the longest context")
@click.option("--acceptance", type=click.FloatRange(1), help="Tokens that a speculative step yields, as measured")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")
def command(
    inventory: Path | None,
    line: Invocation | None,
    service: str | None,
    form: str,
    no_color: bool,
    **asked: Any,
) -> None:
    """Print memory, cache pool, streams and the decode ceiling, offline."""
    from sparkops.fit.fit import NotEvaluated, Question, fit_invocation

    question = Question(**asked)
    if line is not None:
        found: dict[str, Fit | NotEvaluated] = {"": fit_invocation(line, question)}
    else:
        from sparkops.fit.services import fit_services

        found = fit_services(inventory or Path("inventory.yml"), service, question)
    if form == "json":
        _dump(found, one=line is not None)
        return
    for name, fit in found.items():
        if isinstance(fit, NotEvaluated):
            _print_reason(name, fit, no_color)
        else:
            _print(name, fit, no_color)


def _dump(found: dict[str, Fit | NotEvaluated], *, one: bool) -> None:
    from sparkops.reports.fit import as_json

    shapes = {name: as_json(fit) for name, fit in found.items()}
    content = next(iter(shapes.values())) if one else {"schema": "sparkops.fit/1", "services": shapes}
    click.echo(json.dumps(content, indent=1, ensure_ascii=False))


def _print(name: str, fit: Fit, no_color: bool) -> None:
    from sparkops.cli.printing import console
    from sparkops.fit.verdict import verdict
    from sparkops.reports import fit as output
    from sparkops.reports.table import table
    from sparkops.reports.text import Printer

    printer = Printer(console(no_color))
    run = fit.run
    ranks = run.effective.world_size * run.effective.data_parallel
    placed = f", on each of {ranks} ranks" if ranks > 1 else ""
    printer.line((f"{name}: " if name else "", "bold"), (f"{run.served} on vLLM {run.engine.asked}{placed}", "bold"))
    if fit.figures.budget is not None:
        table(printer, ("memory", "", ""), output.memory_rows(fit))
    figures = output.figure_rows(fit)
    if figures:
        table(printer, ("figure", "", ""), figures)
    speeds = output.speed_rows(fit)
    if speeds:
        table(printer, ("published", "", "source"), speeds)
    for note in fit.notes:
        printer.line((f"note: {note}", "yellow"))
    for field, reason in fit.unknown.items():
        printer.line((f"not known: {field}: {reason}", "dim"))
    if fit.solved is not None:
        printer.line((f"solved: {fit.solved['streams']:,} streams of {fit.solved['context']:,} tokens fit", "bold"))
    printer.line((verdict(fit), "green" if fit.fits else "red"))


def _print_reason(name: str, service: NotEvaluated, no_color: bool) -> None:
    from sparkops.cli.printing import console
    from sparkops.reports.text import Printer

    Printer(console(no_color)).line((f"{name}: ", "bold"), (f"not known: {service.reason}", "red"))
