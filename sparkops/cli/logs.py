"""`sparkops logs`: the journals of a service's units."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import printer_for
from sparkops.core.wording import Message
from sparkops.inventory.limit import named
from sparkops.operate.logs import Attached, Entry, Lost, logs
from sparkops.operate.logs import follow as following
from sparkops.operate.services import chosen
from sparkops.reports.formatting import local, safe
from sparkops.reports.printer import Printer

APART = 0.5
"""Seconds between two clocks from which on the order of the lines is said to be uncertain."""


@click.command(
    "logs",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops logs qwen
  sparkops logs qwen -f -n 20              and what comes, until Ctrl-C
  sparkops logs qwen --limit spark-02
  sparkops logs qwen --format json         one JSON object a line""",
)
@click.argument("service")
@options.inventory
@options.limit
@options.extra
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=100,
    show_default=True,
    help="How many of the last entries of each node",
)
@options.text_or_json
@options.common
def command(common: CommonOptions, service: str, follow: bool, lines: int) -> int:
    """Print the logs of a service, its ranks merged by the times of their journals. With -f a node that is lost is
    tried again, and goes on where it was. Exit status 3: a node could not be asked."""
    made = context(common)
    wanted = named(made.inventory, common.limit)
    ranks = [rank for rank in chosen(made.inventory, [service]) if rank.node in wanted]
    if not ranks:
        raise click.UsageError(f"{service} is not on {', '.join(common.limit) or 'a node of this shard'}")
    printer = printer_for(common.no_color)
    told = _Told({rank.node: rank.number for rank in ranks})
    try:
        with contextlib.closing((following if follow else logs)(made, ranks, lines=lines, told=told.tell)) as entries:
            for entry in entries:
                number = told.ranks[entry.node]
                if common.form == "json":
                    place = {"node": entry.node, "rank": number}
                    click.echo(
                        json.dumps({**place, "time": entry.time, "priority": entry.priority, "text": entry.text})
                    )
                else:
                    _print(entry, printer, f"{number} {entry.node:{told.width}} " if told.width else "")
    except KeyboardInterrupt:
        return 130
    return 3 if told.silent else 0


class _Told:
    """What is said beside the entries, on standard error."""

    def __init__(self, ranks: Mapping[str, int]) -> None:
        self.ranks = ranks
        self.width = max(map(len, ranks)) if len(ranks) > 1 else 0
        self.silent: set[str] = set()

    def tell(self, what: Attached | Lost) -> None:
        """Once for each change."""
        if isinstance(what, Lost):
            known = what.node in self.silent
            self.silent.add(what.node)
            if what.over or not known:
                self._say(what.node, f"{what.error.message.full}{'' if what.over else '; it is tried again'}")
            return
        if what.node in self.silent:
            self.silent.discard(what.node)
            self._say(what.node, Message.of("log-node-back").text)
        elif self.width and abs(what.ahead) > what.error + APART:
            way = "ahead of" if what.ahead > 0 else "behind"
            self._say(what.node, Message.of("log-clock-differs", seconds=round(abs(what.ahead), 1), way=way).full)

    def _say(self, node: str, text: str) -> None:
        click.echo(safe(f"{node}: {text}"), err=True)


def _print(entry: Entry, printer: Printer, prefix: str) -> None:
    style = "red" if entry.priority <= 3 else "yellow" if entry.priority == 4 else ""
    for text in entry.text.split("\n"):
        head = [(prefix, "cyan")] if prefix else []
        printer.line(*head, (f"{_clock(entry.time)} ", "dim"), (text, style))


def _clock(seconds: float) -> str:
    """The time of day here; of what has no time, nothing."""
    if not seconds:
        return ""
    return local(seconds, "%m-%d %H:%M:%S")
