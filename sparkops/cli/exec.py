"""`sparkops exec`: one program on several nodes."""

from __future__ import annotations

import sys

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import show_json
from sparkops.inventory.limit import named
from sparkops.nodes.transport import harmless
from sparkops.operate.exec import Execution, execute, exit_status
from sparkops.reports.exec import as_json
from sparkops.reports.formatting import safe

ARGV = "sparkops.argv"


class AfterDashes(WithInventory):
    """Leaves what follows the first `--` unparsed: it is the program's, word for word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[ARGV] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    "exec",
    cls=AfterDashes,
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  sparkops exec all -- nvidia-smi -L
  sparkops exec spark-01 spark-02 --timeout 10 -- uptime
  sparkops exec qwen -- sh -c 'df -h / | tail -1'      a shell only where you ask for one""",
)
@click.argument("nodes", nargs=-1, metavar="NODE... -- PROGRAM [WORD]...")
@options.inventory
@options.limit
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds after which it is ended")
@options.jobs
@options.text_or_json
@options.common
def command(common: CommonOptions, timeout: float | None) -> int:
    """Run a program on nodes side by side, as root where `become` says so. NODE is a node, group or service, or `all`.

    There is no shell and no input. Exit status 0: it succeeded everywhere, 4: not everywhere, 3: a node was silent.
    """
    ctx = click.get_current_context()
    argv = ctx.meta.get(ARGV)
    if not argv:
        raise click.UsageError("write -- between the nodes and the program: sparkops exec spark-01 -- uptime", ctx)
    if not common.selected:
        raise click.UsageError("name the nodes; `all` are all", ctx)
    made = context(common)
    chosen = named(made.inventory, common.selected)
    ends: dict[str, Execution] = {}
    width = max(map(len, chosen))
    for block in execute(made, chosen, argv, timeout=timeout, ends=ends):
        if common.form == "json":
            ends[block.node].add(block)
        else:
            prefix = f"{block.node:{width}} | "
            file = sys.stdout if block.stream == 1 else sys.stderr
            shown = harmless(block.data).replace("\n", f"\n{prefix}")
            file.write(f"{prefix}{shown}\n")
    if common.form == "json":
        show_json(as_json(ends))
        return exit_status(ends)
    for node, end in ends.items():
        if end.reason:
            click.echo(f"{node:{width}} ✗ {safe(end.reason.full)}", err=True)
        elif end.status != 0:
            click.echo(f"{node:{width}} ✗ exit status {end.status}", err=True)
    return exit_status(ends)
