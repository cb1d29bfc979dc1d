"""What `plan` and `drift` share: load, look, print."""

from __future__ import annotations

import shlex
import sys
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
    save: Path | None = None,
    upstream: bool = False,
) -> int:
    """Load, observe, print, and keep the plan in the file `save`; returns the exit status."""
    from sparkops.nodes.connect import Connections
    from sparkops.reconcile.apply import Road

    loaded, compiled, secrets = options.load(inventory, extra, limit, roles, lock="upstream" if upstream else "as-is")
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
    if save is not None:
        from sparkops.operate import plans

        plans.keep(save, report.plan, loaded, compiled, extra=extra, limit=limit, roles=roles)
        again = [word for key, value in extra for word in ("-e", f"{key}={value}")]
        words = shlex.join(["sparkops", "apply", str(inventory), "--plan", str(save), *again])
        print(f"kept in {save}; to carry it out: {words}", file=sys.stderr)
    return report.exit_status
