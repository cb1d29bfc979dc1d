"""`sparkops facts`: what the nodes report about themselves."""

from __future__ import annotations

import json

import click
import yaml

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable
from sparkops.core.errors import SparkopsError
from sparkops.core.states import Unknown
from sparkops.inventory.faults import suggest
from sparkops.inventory.limit import named
from sparkops.inventory.secrets import Secrets
from sparkops.operate.facts import GROUPS, facts
from sparkops.reconcile.targets import targets
from sparkops.reports import schemas
from sparkops.reports.formatting import safe


@click.command(
    "facts",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops facts
  sparkops facts spark-01 --group gpu --group memory
  sparkops facts --format json""",
)
@options.nodes
@click.option("--group", "groups", multiple=True, help="Only this group of facts (repeatable)")
@options.only_form
@options.common
def command(common: CommonOptions, groups: tuple[str, ...]) -> int:
    """Print the facts of nodes: what `require` checks and `fact(…)` in a role reads."""
    for group in groups:
        if group not in GROUPS:
            raise click.UsageError(f"there is no group of facts {group!r}; {suggest(group, GROUPS)}")
    made = context(common)
    chosen = named(made.inventory, common.selected)
    reachable = {name: target for name, target in targets(made.inventory, Secrets()).items() if name in chosen}
    found = facts(reachable, made.connections, groups=groups or GROUPS, jobs=common.jobs)
    bad = {node: each for node, each in found.items() if isinstance(each, (SparkopsError, Unknown))}
    good = {node: each for node, each in found.items() if node not in bad}
    if common.form == "json":
        faults = {node: (each if isinstance(each, Unknown) else each.message).as_json() for node, each in bad.items()}
        click.echo(json.dumps({"schema": schemas.FACTS, "nodes": good, "unreachable": faults}, indent=1))
    else:
        click.echo(safe(yaml.safe_dump(good, sort_keys=False, allow_unicode=True)).rstrip() if good else "")
        echo_unreachable(bad)
    return 3 if bad else 0
