"""`sparkops generations`: the states of services that nodes keep to return to."""

from __future__ import annotations

from collections.abc import Mapping

import click

from sparkops.cli import options
from sparkops.cli.inventory_argument import WithInventory
from sparkops.cli.loading import context
from sparkops.cli.options import CommonOptions
from sparkops.cli.printing import show_json
from sparkops.compile.compiler import compile_inventory
from sparkops.core.states import Unknown
from sparkops.operate.rollback import kept
from sparkops.operate.services import selected
from sparkops.reports import schemas
from sparkops.reports.formatting import local, safe


@click.command(
    "generations",
    cls=WithInventory,
    epilog="""\b
Examples:
  sparkops generations
  sparkops generations qwen
  sparkops generations qwen --format json""",
)
@click.argument("services", nargs=-1)
@options.inventory
@options.limit
@options.extra
@options.jobs
@options.only_form
@options.common
def command(common: CommonOptions, services: tuple[str, ...]) -> int:
    """Show the stable states that each node keeps of its services, and what is held after a return.

    `sparkops rollback SERVICE --to N` brings one back.

    Exit status 0: all nodes answered; 3: some did not.
    """
    made = context(common)
    names = selected(made.inventory, services or tuple(made.inventory.services), common.limit)
    found = kept(made, compile_inventory(made.inventory), names)
    if common.form == "json":
        shown = {id: each.as_json() if isinstance(each, Unknown) else dict(each) for id, each in found.items()}
        show_json({"schema": schemas.GENERATIONS, "generations": shown})
    else:
        for id, each in found.items():
            service, node = id.partition(" @")[0].rpartition("/")[2], id.partition(" @")[2]
            click.echo(safe(f"{service} @{node}"))
            for line in _lines(each):
                click.echo(safe(f"  {line}"))
    return 3 if any(isinstance(each, Unknown) for each in found.values()) else 0


def _lines(found: Mapping[str, object] | Unknown) -> list[str]:
    if isinstance(found, Unknown):
        return [f"unknown: {found.full}"]
    generations = found.get("generations")
    lines = []
    for each in generations if isinstance(generations, list) else []:
        number, inputs, when = (each.get(key) for key in ("number", "inputs", "time"))
        here = "  (there now)" if number == found.get("at") else ""
        lines.append(f"{number!s:>4}  {local(when)}  spec {str(inputs)[:12]}{here}")
    rejected = found.get("rejected")
    lines += [_held(str(each)) for each in (rejected if isinstance(rejected, list) else [])]
    return lines or ["none yet"]


def _held(rejected: str) -> str:
    spec, _, image = rejected.partition("+")
    return f"held  spec {spec[:12]}" + (f" with an image that was taken back ({image[:12]})" if image else "")
