"""`sparkops facts`: what the nodes say about themselves."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sparkops.cli import options


@click.command(
    "facts",
    epilog="""\b
Examples:
  sparkops facts
  sparkops facts spark-01 --group gpu --group memory
  sparkops facts --format json""",
)
@options.nodes
@click.option("--group", "groups", multiple=True, help="Only this group of facts (repeatable)")
@options.only_form
def command(
    nodes: tuple[str, ...], inventory: Path, limit: tuple[str, ...], groups: tuple[str, ...], form: str, jobs: int
) -> int:
    """Print the facts of nodes: what `require` judges and `fact(…)` in a role reads."""
    import yaml

    from sparkops.cli.printing import passwords_for
    from sparkops.core.errors import SparkopsError
    from sparkops.core.states import Unknown
    from sparkops.inventory.faults import suggest
    from sparkops.inventory.limit import named
    from sparkops.inventory.load import load
    from sparkops.inventory.secrets import Secrets
    from sparkops.nodes.connect import Connections
    from sparkops.operate.facts import GROUPS, facts
    from sparkops.reconcile.targets import targets
    from sparkops.reports.formatting import safe

    for group in groups:
        if group not in GROUPS:
            raise click.UsageError(f"there is no group of facts {group!r}; {suggest(group, GROUPS)}")
    loaded = load(inventory)
    chosen = named(loaded, (*nodes, *limit))
    reachable = {name: target for name, target in targets(loaded, Secrets()).items() if name in chosen}
    found = facts(reachable, Connections(passwords_for(loaded)), groups=groups or GROUPS, jobs=jobs)
    bad = {node: each for node, each in found.items() if isinstance(each, (SparkopsError, Unknown))}
    good = {node: each for node, each in found.items() if node not in bad}
    if form == "json":
        faults = {node: str(each) for node, each in bad.items()}
        click.echo(json.dumps({"schema": "sparkops.facts/1", "nodes": good, "unreachable": faults}, indent=1))
    else:
        click.echo(safe(yaml.safe_dump(good, sort_keys=False, allow_unicode=True)).rstrip() if good else "")
        for node, each in bad.items():
            click.echo(safe(f"{node}: {each}"), err=True)
    return 3 if bad else 0
