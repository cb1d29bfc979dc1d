"""`sparkops plan` and `drift`: a run that ends before anything is touched.

What runs is imported when a run begins, so that `--help` and completion of options need none of it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.options import CommonOptions


@click.command(
    "plan",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops plan inventory.yml
  sparkops plan inventory.yml --limit spark-02
  sparkops plan inventory.yml --shard 2/4            the second of four parts of the nodes
  sparkops plan inventory.yml --format json          the report, for a program
  sparkops plan inventory.yml -o plan.json           saved, to be applied as it is:
  sparkops apply inventory.yml --plan plan.json""",
)
@options.inventory
@options.selection
@options.jobs
@click.option("-o", "--save", type=options.NewFile(), help="Save the plan to a file, for `apply --plan`")
@options.form
@options.common
def plan(common: CommonOptions, save: Path | None, verbose: int) -> int:
    """Show what an apply would change. Exit status 0: nothing, 2: something, 3: something is unknown.

    A saved plan (-o) holds neither content nor secrets.
    """
    if save == Path("-"):
        raise click.UsageError("a saved plan is a file; the report is printed without -o")
    from sparkops.cli.loading import load
    from sparkops.cli.printing import finish, listener_for

    cluster = load(common)
    with listener_for(common) as listener:
        report = cluster.plan(listener=listener)
    status = finish(report, common, verbose=verbose)
    if save is not None:
        from sparkops.operate import plans

        plans.save(
            save,
            report.plan,
            cluster.inventory,
            cluster.compiled,
            extra=cluster.extra,
            limit=cluster.limit,
            roles=cluster.roles,
        )
        again = [word for key, value in common.extra for word in ("-e", f"{key}={value}")]
        command = shlex.join(["sparkops", "apply", str(common.inventory), "--plan", str(save), *again])
        print(f"saved in {save}; to apply it: {command}", file=sys.stderr)
    return status


@click.command(
    "drift",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops drift inventory.yml
  sparkops drift inventory.yml --format json      for a timer or CI: exit status 0, 2 or 3
  sparkops drift --report html=drift.html --report junit=drift.xml    several files of one look
  sparkops drift inventory.yml --limit qwen       one service with all its nodes
  sparkops drift --shard 2/4 --report json=2.json  one part of the nodes; `sparkops report merge` joins the reports
  sparkops drift inventory.yml --since 7d         what kept runs saw, and since when
  sparkops drift --explain drift-differs""",
)
@options.inventory
@options.selection
@options.jobs
@options.output
@click.option("--upstream", is_flag=True, help="Also ask registries and hubs what moved since it was locked")
@click.option(
    "--since", type=options.Duration(), metavar="TIME", help="Ask no node: what kept runs saw since then (7d, 12h, 30m)"
)
@click.option("--explain", metavar="ID", help="Ask no node: explain the id of a finding, as `sparkops explain` does")
@options.common
def drift(
    common: CommonOptions, upstream: bool, since: float | None, explain: str | None, output: Path | None, verbose: int
) -> int:
    """Report what differs from the declaration. Exit status 0: nothing, 2: something, 3: something is unknown.

    Every look is kept on this machine for 30 days, so that a report says since when, and who moved: the node
    (corrective) or the declaration (intentional).
    """
    if explain is not None:
        from sparkops.cli.explain import show

        return show(explain)
    if since is not None:
        if upstream or output is not None:
            raise click.UsageError("--since asks no node and writes no file: it goes without --upstream and -o")
        from sparkops.cli.report import show_since

        return show_since(common, since)
    from sparkops.cli.loading import load
    from sparkops.cli.printing import finish, listener_for

    cluster = load(common)
    with listener_for(common) as listener:
        report = cluster.drift(upstream=upstream, listener=listener)
    return finish(report, common, output, verbose)
