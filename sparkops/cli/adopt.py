"""`sparkops adopt`: take over what already runs on a Spark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sparkops.cli import options

if TYPE_CHECKING:
    from sparkops.operate.adopt import Adoption, FoundFolder
    from sparkops.operate.adopt_diff import Difference
    from sparkops.reports.text import Printer


@click.command(
    "adopt",
    epilog="""\b
Examples:
  sparkops adopt                                  the only declared service; shows what differs, and asks
  sparkops adopt spark-01 qwen
  sparkops adopt spark-01 qwen --container vllm --checkpoint /home/nvidia/models/qwen --yes
  sparkops adopt spark-01 qwen --format json      exit status 2: there is something to take over""",
)
@click.argument("node", required=False)
@click.argument("service", required=False)
@options.inventory_option
@click.option("--container", default="", metavar="NAME", help="This container, where several could be meant")
@click.option("--unit", default="", metavar="NAME", help="This unit (vllm.service), where none is found by itself")
@click.option("--checkpoint", default="", metavar="PATH", help="The model's files are in this folder or cache there")
@click.option("-y", "--yes", is_flag=True, help="Don't ask")
@options.reason
@options.text_or_json
def command(
    node: str | None,
    service: str | None,
    inventory: Path,
    container: str,
    unit: str,
    checkpoint: str,
    yes: bool,
    reason: str,
    form: str,
    no_color: bool,
) -> int:
    """Take over what already runs on a Spark in the place of a declared service; nothing is deleted.

    Shown is in what a foreign container or unit differs from the declaration, and which of the model's files are right,
    byte by byte. Once agreed to, right files are taken over by hard links, the container is stopped, loses its restart
    policy and is renamed to NAME-before-sparkops, foreign units are stopped and disabled; the commands that lead back
    are printed. The next apply starts the declared service and fetches only what was not right.

    Exit status 0: taken over, or nothing is there; 2: only shown, or the answer was no; 4: the node refused.
    """
    from sparkops.cli.printing import console, listener_for, passwords_for
    from sparkops.inventory.load import load
    from sparkops.nodes.connect import Connections
    from sparkops.operate.adopt import KIND, find, pick, take
    from sparkops.operate.connect import reach
    from sparkops.reports.text import Printer

    loaded = load(inventory)
    declared = pick(loaded, node, service)
    printer = Printer(console(no_color))
    connections = Connections(passwords_for(loaded))
    with listener_for(form, no_color) as listener:
        with reach(loaded, [declared.rank.node], [KIND], connections, listener=listener) as fleet:
            found = find(fleet, declared, container=container, unit=unit, folder=checkpoint, listener=listener)
        with listener.paused():
            if form == "text":
                _show(found, printer)
            agreed = not found.empty and (yes or _agreed(found, form))
        if agreed:
            found = take(loaded, declared, found, connections, reason=reason, listener=listener)
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _outcome(found, printer, inventory)
    return found.exit_status


def _show(found: Adoption, printer: Printer) -> None:
    if found.empty:
        printer.line(f"nothing on {found.node} stands in the place of {found.service}")
    if found.container is not None:
        state = "runs" if found.container["running"] else "is stopped"
        printer.line(("container ", ""), (found.container["name"], "bold"), f" {state}", (f" @{found.node}", "dim"))
        _differences(found.differences, printer)
    for unit in found.units:
        words = [word for word, holds in (("active", unit.active), ("enabled", unit.enabled)) if holds]
        printer.line(("unit ", ""), (unit.name, "bold"), f" {', '.join(words)}", (f" @{found.node}", "dim"))
        _differences(unit.differences, printer)
        for line in unit.diff.splitlines():
            printer.line(line, indent=4)
    if found.folder is not None:
        _folder(found.folder, printer)


def _differences(differences: tuple[Difference, ...], printer: Printer) -> None:
    for each in differences:
        printer.line(("~ ", "yellow"), f"{each.what}: {each.found} → {each.declared}", indent=4)


def _folder(folder: FoundFolder, printer: Printer) -> None:
    from sparkops.reports.formatting import count, names, size

    printer.line(("checkpoint ", ""), (folder.path, "bold"))
    printer.line(("✓ ", "green"), f"{count(len(folder.right), 'file')} right, {size(folder.right_bytes)}", indent=4)
    for word, paths in (("other content", folder.wrong), ("missing", folder.missing)):
        if paths:
            printer.line(("~ ", "yellow"), f"{word}: {names(paths)}", indent=4)
    if folder.other_bytes:
        printer.line(f"{size(folder.other_bytes)} are left to fetch", indent=4)


def _agreed(found: Adoption, form: str) -> bool:
    if form == "json" or not options.is_terminal():
        return False
    stops = " (what runs is stopped)" if found.container is not None or found.units else ""
    return click.confirm(f"Take it over for {found.service}{stops}?")


def _outcome(found: Adoption, printer: Printer, inventory: Path) -> None:
    if found.taken:
        printer.line(("✓ ", "green"), f"taken over; `sparkops apply {inventory} --limit {found.node}` starts it anew")
        printer.line(f"to go back, on {found.node} as root:", indent=2)
        for line in found.back:
            printer.line(line, indent=4)
    elif not found.empty and not options.is_terminal():
        click.echo("nothing was touched; --yes takes it over", err=True)
