"""What `plan` and `drift` share: load, look, print."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sparkops.cli import options
from sparkops.cli.printing import emit, listener_for, passwords_for


def look(
    name: Literal["plan", "drift"],
    inventory: Path,
    *,
    extra: tuple[tuple[str, str], ...],
    limit: tuple[str, ...],
    roles: tuple[str, ...],
    jobs: int,
    form: str,
    output: Path | None,
    verbose: int,
    no_color: bool,
) -> int:
    """Load, observe, print; returns the exit status."""
    from sparkops.nodes.connect import Connections
    from sparkops.reconcile.apply import Road

    loaded, compiled, secrets = options.load(inventory, extra, limit, roles)
    with listener_for(form, no_color) as listener:
        report = Road(
            inventory=loaded,
            compiled=compiled,
            connections=Connections(passwords_for(loaded)),
            secrets=secrets,
            listener=listener,
            jobs=jobs,
        ).look(name)
    emit(report, form, output, no_color=no_color, verbose=verbose)
    return report.exit_status
