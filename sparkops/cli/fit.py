"""`sparkops fit`: what a serve line needs and what then fits, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.printing import printer_for
from sparkops.cli.serve_line import serve_line
from sparkops.fit.fit import Fit, NotEvaluated, Question, fit_invocation
from sparkops.fit.services import fit_services
from sparkops.models.invocation import Invocation
from sparkops.reports.fit import dumped, render


@click.command(
    "fit",
    cls=WithInventory,
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
    question = Question(**asked)
    if line is not None:
        found: dict[str, Fit | NotEvaluated] = {"": fit_invocation(line, question)}
    else:
        found = fit_services(inventory or Path("inventory.yml"), service, question)
    if form == "json":
        click.echo(dumped(found, one=line is not None))
        return
    for name, fit in found.items():
        render(name, fit, printer_for(no_color))
