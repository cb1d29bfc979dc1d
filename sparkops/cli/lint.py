"""`sparkops lint`: what would go wrong, known before the load; of an inventory, or of one pasted serve line."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.lint.check import Finding

FORMATS = ("text", "json", "sarif", "github")
STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command(
    "lint",
    epilog="""\b
Examples:
  sparkops lint                                     the inventory
  sparkops lint --serve 'vllm serve MODEL --kv-cache-dtype fp8' --engine 0.26.0
  sparkops lint --serve - --engine 0.33.0 --env VLLM_USE_DEEP_GEMM=0 < line.txt""",
)
@click.argument("inventory", type=click.Path(path_type=Path), required=False)
@click.option("--serve", metavar="LINE", help="Judge this `vllm serve …` line instead of an inventory; - reads it")
@click.option("--engine", metavar="VERSION", help="The engine's version, like 0.26.0 (with --serve)")
@click.option(
    "--gpus", type=click.IntRange(1, 64), default=1, show_default=True, help="GPUs of one node (with --serve)"
)
@click.option("--env", "variables", type=options.Pair(), multiple=True, help="NAME=VALUE of the engine (with --serve)")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")
def command(
    inventory: Path | None,
    serve: str | None,
    engine: str | None,
    gpus: int,
    variables: tuple[tuple[str, str], ...],
    form: str,
    no_color: bool,
) -> int:
    """Find what would go wrong, offline. Exit status 1 if anything is an error, else 0."""
    if serve is None:
        if engine or variables:
            raise click.UsageError("--engine and --env go with --serve; an inventory says them itself")
        return _tell(_of_inventory(inventory or Path("inventory.yml")), form, no_color)
    if inventory is not None:
        raise click.UsageError("give an inventory or --serve, not both")
    if engine is None:
        raise click.UsageError("--serve needs --engine VERSION, like --engine 0.26.0")
    from sparkops.lint.line import lint_line

    line = sys.stdin.read() if serve == "-" else serve
    return _tell(lint_line(line, engine, gpus, dict(variables), Path.cwd()), form, no_color)


def _of_inventory(path: Path) -> list[Finding]:
    from datetime import date

    from sparkops.inventory.load import load
    from sparkops.lint.declared import lint_inventory

    return lint_inventory(load(path), date.today())


def _tell(findings: list[Finding], form: str, no_color: bool) -> int:
    """Print findings in the chosen form; the exit status."""
    from sparkops.lint.check import refusing
    from sparkops.reports import lint
    from sparkops.reports.formatting import count, safe

    if form == "json":
        click.echo(lint.dumped(lint.as_json(findings)))
    elif form == "sarif":
        import sparkops

        click.echo(lint.dumped(lint.sarif(findings, sparkops.__version__)))
    elif form == "github":
        for line in lint.github(findings):
            click.echo(safe(line))
    else:
        coloured = sys.stdout.isatty() and not no_color and not os.environ.get("NO_COLOR")
        for severity, line in lint.text(findings):
            click.echo(click.style(safe(line), fg=STYLES.get(severity)) if coloured else safe(line))
        counts = Counter(str(each.severity) for each in findings if not each.accepted)
        told = (count(counts[name], name) for name in ("error", "warning") if counts[name])
        click.echo(", ".join(told) or "no errors, no warnings")
    return 1 if refusing(findings) else 0
