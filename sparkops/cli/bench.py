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
from sparkops.operate.measuring import spark_arena
from sparkops.operate.measuring.bench import bench, judged, keep, last_kept
from sparkops.operate.measuring.tools import TOOLS, Load, measured
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
  sparkops bench qwen --plot speed.png     needs sparkops[plot]
  sparkops bench qwen --with llama-benchy  its own words go to standard error, its JSON is kept
  sparkops bench qwen --export spark-arena submission/   hours; the three files, sent nowhere""",
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
@click.option(
    "--with",
    "tool",
    type=click.Choice([*TOOLS]),
    default=None,
    help="Measure by this tool, which must be installed here; vllm-bench runs in the service's own container. "
    "tool-eval-bench tells of tool calls and takes none of the options above",
)
@click.option(
    "--export",
    type=(click.Choice(["spark-arena"]), click.Path(path_type=Path, file_okay=False)),
    default=None,
    metavar="spark-arena DIR",
    help="Measure the profile of Spark Arena by llama-benchy, and write recipe.yaml, benchmark.csv and metadata.json",
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
    tool: str | None,
    export: tuple[str, Path] | None,
) -> int:
    """Measure every engine of a service: seconds to the first token, tokens per second, acceptance, share of fit's
    ceiling, and what seems wrong. It loads the service while it runs. Exit status 2: too slow, 3: not all could be
    measured."""
    if export is not None and (tool not in (None, "llama-benchy") or picture is not None):
        raise click.UsageError("--export measures by llama-benchy, and has neither another tool nor a plot")
    made = context(common, listener_for(common))
    if export is not None:
        paths = spark_arena.export(made, service, common.limit, export[1])
        for path in paths:
            click.echo(path)
        return 0
    last = last_kept(made.inventory.cluster, service, tool or "")
    if tool is not None:
        load = Load(concurrency=concurrency, contexts=contexts, tokens=tokens)
        found = measured(made, service, common.limit, tool, load)
    else:
        nodes = named(made.inventory, common.limit)
        given = {"concurrency": concurrency, "contexts": contexts}
        found = bench(made, service, nodes, tokens=tokens, seconds=seconds, **given)
    found = judged(found, made.inventory, last)
    path = keep(found, as_json(found))
    answer(common, as_json(found), lambda printer: render(found, printer))
    if common.form == "text":
        click.echo(f"kept as {path}", err=True)
    if picture is not None:
        plot(found, picture)
    return found.exit_status
