"""`sparkops fit`: what a serve line needs and what then fits, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.printing import printer_for
from sparkops.cli.serve_line import serve_line
from sparkops.fit.fit import SPARK, Fit, NotEvaluated, Question, fit_invocation
from sparkops.models import platform
from sparkops.models.invocation import Ask, Invocation
from sparkops.models.platform import GIB, Device
from sparkops.reports.fit import dumped, render

POSITIVE = click.FloatRange(0, min_open=True)


@click.command(
    "fit",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops fit --serve 'vllm serve Qwen3.5-122B-A10B --max-model-len 131072 --max-num-seqs 4' --engine 0.26.0
  sparkops fit --serve - --engine 0.33.0 --solve context < line.txt
  sparkops fit --serve - --engine 0.26.0 --device h200 < line.txt
  sparkops fit --serve 'vllm serve ORG/NAME --max-model-len 32768' --engine 0.33.0 --offline
  sparkops fit inventory.yml qwen""",
)
@serve_line
@click.argument("service", required=False)
@click.option("--streams", type=click.IntRange(1), help="Ask for so many streams instead of max-num-seqs")
@click.option("--context", type=click.IntRange(1), help="Ask for streams of so many tokens instead of max-model-len")
@click.option("--solve", type=click.Choice(["streams", "context"]), help="The most streams, or the longest context")
@click.option("--acceptance", type=click.FloatRange(1), help="Tokens that a speculative step yields, as measured")
@click.option("--device", default=SPARK, show_default=True, help="Count on this device of knowledge/platform.yml")
@click.option("--memory", type=POSITIVE, help="GiB of one GPU, all that the device shows (instead of the device's)")
@click.option("--bandwidth", type=POSITIVE, help="GB/s of its memory (instead of the device's)")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--no-color", is_flag=True, help="No colours (NO_COLOR works too)")
def command(
    inventory: Path | None,
    shard: tuple[int, int] | None,
    line: Invocation | None,
    ask: Ask,
    service: str | None,
    form: str,
    no_color: bool,
    device: str,
    memory: float | None,
    bandwidth: float | None,
    **asked: Any,
) -> None:
    """Print memory, cache pool, streams and the decode ceiling.

    No node is asked. A model that is in no knowledge is read from the hub once (configuration and tensor headers) and
    kept in the cache.
    """
    question = Question(**asked, device=_device(device, memory, bandwidth))
    if line is not None:
        found: dict[str, Fit | NotEvaluated] = {"": fit_invocation(line, question)}
    else:
        from sparkops import library  # loading inventories costs a third of a pasted line's time

        found = library.load(inventory or Path("inventory.yml"), shard=shard).fit(service, question=question, ask=ask)
    if form == "json":
        click.echo(dumped(found, one=line is not None))
        return
    for name, fit in found.items():
        render(name, fit, printer_for(no_color))


def _device(name: str, memory: float | None, bandwidth: float | None) -> Device:
    """The device of that name, with what was said of it instead. Raises InventoryError."""
    found = platform.load().device(name)
    return replace(
        found,
        memory=found.memory if memory is None else memory * GIB,
        bandwidth=found.bandwidth if bandwidth is None else bandwidth * 1e9,
    )
