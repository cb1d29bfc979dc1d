"""`sparkops bench`: how fast a service is, measured on its own node."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import answer, listener_for
from sparkops.inventory.limit import named
from sparkops.operate.measuring.bench import bench, judged, keep, last_kept
from sparkops.reports.bench import as_json, plot, render


class Numbers(click.ParamType):  # type: ignore[type-arg]  # click 8.1 has no arguments here
    """`1,4`: whole numbers from 1 on."""

    name = "numbers"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(re.fullmatch(r"[0-9]{1,7}", word) and 1 <= int(word) <= self.most for word in words):
            self.fail(f"{value!r} is not like 1,4 with numbers from 1 to {self.most}", param, ctx)
        return tuple(dict.fromkeys(map(int, words)))


@click.command(
    "bench",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops bench qwen
  sparkops bench qwen --concurrency 1,4,8 --context 512,8192,32768
  sparkops bench qwen --format json        also kept below $XDG_STATE_HOME/sparkops/bench
  sparkops bench qwen --plot speed.png     needs sparkops[plot]""",
)
@click.argument("service")
@options.inventory
@options.limit
@options.extra
@click.option(
    "--concurrency", type=Numbers(256), default="1,4", show_default=True, help="Requests at once, one cell each"
)
@click.option(
    "--context", "contexts", type=Numbers(2_000_000), default="512,8192", show_default=True, help="Tokens of prompt"
)
@click.option("--tokens", type=click.IntRange(8, 8192), default=128, show_default=True, help="Tokens to generate")
@click.option(
    "--seconds", type=click.FloatRange(1, 3600), default=300.0, show_default=True, help="Limit of a completion"
)
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw it into this PNG file"
)
@options.text_or_json
@options.common
def command(
    common: CommonOptions,
    service: str,
    concurrency: tuple[int, ...],
    contexts: tuple[int, ...],
    tokens: int,
    seconds: float,
    picture: Path | None,
) -> int:
    """Measure a service: seconds to the first token, tokens per second, acceptance, share of fit's ceiling, and what
    seems wrong. It loads the service while it runs. Exit status 2: too slow, 3: not all could be measured."""
    made = context(common, listener_for(common))
    last = last_kept(made.inventory.cluster, service)
    found = bench(
        made,
        service,
        named(made.inventory, common.limit),
        concurrency=concurrency,
        contexts=contexts,
        tokens=tokens,
        seconds=seconds,
    )
    found = judged(found, made.inventory, last)
    path = keep(found, as_json(found))
    answer(common, as_json(found), lambda printer: render(found, printer))
    if common.form == "text":
        click.echo(f"kept as {path}", err=True)
    if picture is not None:
        plot(found, picture)
    return found.exit_status
