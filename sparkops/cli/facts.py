"""`sparkops facts`: what the nodes report about themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import click
import yaml

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import echo_unreachable, printer_for, show_json
from sparkops.core.errors import SparkopsError
from sparkops.core.messages import Fields
from sparkops.core.states import Unknown, lookup
from sparkops.inventory.faults import suggest
from sparkops.inventory.limit import named
from sparkops.inventory.secrets import Secrets
from sparkops.operate.facts import GROUPS, facts
from sparkops.reconcile.targets import targets
from sparkops.reports import schemas
from sparkops.reports.formatting import safe
from sparkops.reports.printer import Cell, table

COLUMNS = (
    "os.release",
    "os.kernel",
    "memory.available_bytes",
    "gpu.name",
    "gpu.driver_version",
    "gpu.cuda_version",
    "gpu.temperature_celsius",
)
"""What a table shows where no columns are chosen."""


@click.command(
    "facts",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops facts
  sparkops facts spark-01 --group gpu --group memory
  sparkops facts --format table            a line for each node
  sparkops facts --format table --column gpu.sm_clock_mhz --column memory.available_bytes
  sparkops facts --format json""",
)
@options.nodes
@click.option("--group", "groups", multiple=True, help="Only this group of facts (repeatable)")
@click.option("--column", "columns", multiple=True, help="A fact by its path, as a column of the table (repeatable)")
@options.form_or_table
@options.common
def command(common: CommonOptions, groups: tuple[str, ...], columns: tuple[str, ...]) -> int:
    """Print the facts of nodes: what `require` checks and `fact(…)` in a role reads."""
    for group in groups:
        if group not in GROUPS:
            raise click.UsageError(f"there is no group of facts {group!r}; {suggest(group, GROUPS)}")
    if columns and (groups or common.form != "table"):
        raise click.UsageError("--column is for --format table, where the columns choose the groups")
    if common.form == "table":
        columns = columns or COLUMNS
        groups = tuple(dict.fromkeys(column.partition(".")[0] for column in columns))
        if wrong := [each for each in groups if each not in GROUPS]:
            raise click.UsageError(f"there is no group of facts {wrong[0]!r}; {suggest(wrong[0], GROUPS)}")
    made = context(common)
    chosen = named(made.inventory, common.selected)
    reachable = {name: target for name, target in targets(made.inventory, Secrets()).items() if name in chosen}
    found = facts(reachable, made.connections, groups=groups or GROUPS, jobs=common.jobs)
    bad = {node: each for node, each in found.items() if isinstance(each, (SparkopsError, Unknown))}
    good = {node: each for node, each in found.items() if node not in bad}
    if common.form == "json":
        faults = {node: (each if isinstance(each, Unknown) else each.message).as_json() for node, each in bad.items()}
        show_json({"schema": schemas.FACTS, "nodes": good, "unreachable": faults})
    elif common.form == "table":
        _table(good, columns, common.no_color)
        echo_unreachable(bad)
    else:
        click.echo(safe(yaml.safe_dump(good, sort_keys=False, allow_unicode=True)).rstrip() if good else "")
        echo_unreachable(bad)
    return 3 if bad else 0


def _table(found: Fields, columns: Sequence[str], no_color: bool) -> None:
    """A line for each node; what could not be found out is `-`, and what does not exist is empty."""
    rows: list[list[Cell] | str] = []
    for node, facts_of_node in found.items():
        values = (lookup(facts_of_node, column) for column in columns)
        cells = ["-" if isinstance(value, Unknown) else _cell(value) for value in values]
        rows.append([(node, "bold"), *cells])
    table(printer_for(no_color), ("NODE", *columns), rows)


def _cell(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return (
        json.dumps(value)
        if isinstance(value, (Mapping, list, bool))
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
