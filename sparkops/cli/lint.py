"""`sparkops lint`: what would go wrong, known before the load; of an inventory, or of one pasted serve line."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import click

import sparkops
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.serve_line import serve_line
from sparkops.core.errors import InventoryError
from sparkops.lint.case import case_of
from sparkops.lint.check import Finding, check, refusing
from sparkops.models.invocation import Ask, Invocation
from sparkops.reports.findings import lint
from sparkops.reports.formatting import count, safe

FORMATS = ("text", "json", "sarif", "github")
STYLES = {"error": "red", "warning": "yellow", "info": "blue"}


@click.command(
    "lint",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops lint                                     the inventory
  sparkops lint --serve 'vllm serve MODEL --kv-cache-dtype fp8' --engine 0.26.0
  sparkops lint --serve - --engine 0.33.0 --env VLLM_USE_DEEP_GEMM=0 < line.txt
  sparkops lint --serve 'vllm serve ORG/NAME' --engine 0.33.0 --offline""",
)
@serve_line
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")
def command(
    inventory: Path | None,
    shard: tuple[int, int] | None,
    line: Invocation | None,
    ask: Ask,
    form: str,
    no_color: bool,
) -> int:
    """Find what would go wrong. Exit status 1 if anything is an error, else 0.

    No node is asked. A model that is in no knowledge is read from the hub once (configuration and tensor headers) and
    kept in the cache.
    """
    if line is None:
        found, fault = _of_inventory(inventory or Path("inventory.yml"), shard, ask)
        if fault is None:
            return _tell(found, form, no_color)
        if found:
            _tell(found, form, no_color)
        raise fault
    if inventory is not None:
        raise click.UsageError("give an inventory or --serve, not both")
    return _tell(check(case_of(line)), form, no_color)


def _of_inventory(path: Path, shard: tuple[int, int] | None, ask: Ask) -> tuple[list[Finding], InventoryError | None]:
    """What the rules find, and why it can't be compiled into what stands on nodes."""
    from sparkops import library
    from sparkops.compile.compiler import compile_inventory

    cluster = library.load(path, shard=shard)
    found = cluster.lint(ask=ask)
    try:
        compile_inventory(cluster.inventory)
    except InventoryError as fault:
        return found, fault
    return found, None


def _tell(findings: list[Finding], form: str, no_color: bool) -> int:
    """Print findings in the chosen form; the exit status."""
    if form == "json":
        click.echo(lint.dumped(lint.as_json(findings)))
    elif form == "sarif":
        click.echo(lint.dumped(lint.as_sarif(findings, sparkops.__version__)))
    elif form == "github":
        for line in lint.workflow_commands(findings):
            click.echo(safe(line))
    else:
        coloured = sys.stdout.isatty() and not no_color and not os.environ.get("NO_COLOR")
        for severity, line in lint.text(findings):
            click.echo(click.style(safe(line), fg=STYLES.get(severity)) if coloured else safe(line))
        counts = Counter(str(each.severity) for each in findings if not each.accepted)
        totals = (count(counts[name], name) for name in ("error", "warning") if counts[name])
        click.echo(", ".join(totals) or "no errors, no warnings")
    return 1 if refusing(findings) else 0
