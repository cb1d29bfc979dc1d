"""What `sparkops adopt` found and took over, as JSON and as text."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sparkops.core.wording import size
from sparkops.operate.adopt import Adoption, FoundFolder
from sparkops.operate.adopt_diff import Difference
from sparkops.reports import schemas
from sparkops.reports.formatting import count, names
from sparkops.reports.printer import Printer


def as_json(found: Adoption) -> dict[str, object]:
    """`sparkops.adopt/1`; documented in docs/formats.md."""
    container = found.container
    return {
        "schema": schemas.ADOPT,
        "exit_status": found.exit_status,
        "node": found.node,
        "service": found.service,
        "container": container
        and {
            "name": container["name"],
            "image": container["config"].get("Image"),
            "running": container["running"],
            "differences": [dataclasses.asdict(each) for each in found.differences],
        },
        "units": [dataclasses.asdict(each) for each in found.units],
        "checkpoint": found.folder and dataclasses.asdict(found.folder),
        "taken": found.taken,
        "back": list(found.back),
    }


def render(found: Adoption, printer: Printer) -> None:
    """What was found in the place of a service, and how it differs from the declaration."""
    if found.empty:
        printer.line(f"no container or unit of others in the place of {found.service} on {found.node}")
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
    printer.line(("checkpoint ", ""), (folder.path, "bold"))
    printer.line(("✓ ", "green"), f"{count(len(folder.right), 'file')} right, {size(folder.right_bytes)}", indent=4)
    for word, paths in (("other content", folder.wrong), ("missing", folder.missing)):
        if paths:
            printer.line(("~ ", "yellow"), f"{word}: {names(paths)}", indent=4)
    if folder.unreadable:
        words = f"not known, its owner may not read what is there: {names(folder.unreadable)}"
        printer.line(("? ", "magenta"), words, indent=4)
    elif folder.other_bytes:
        printer.line(f"{size(folder.other_bytes)} are left to fetch", indent=4)


def render_outcome(found: Adoption, printer: Printer, inventory: Path) -> None:
    """What was taken over, and the commands that undo it."""
    if found.taken:
        printer.line(
            ("✓ ", "green"),
            f"taken over; to start it: sparkops apply {inventory} --limit {found.node}",
        )
        printer.line(f"to undo, on {found.node} as root:", indent=2)
        for line in found.back:
            printer.line(line, indent=4)
