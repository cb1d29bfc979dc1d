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
    told: options.Given,
    *,
    save: Path | None = None,
    upstream: bool = False,
) -> int:
    """Load, observe, print, and keep the plan in the file `save`; returns the exit status."""
    from sparkops.nodes.connect import Connections
    from sparkops.reconcile.planning import RunOptions
    from sparkops.reconcile.run import run

    lock: Literal["upstream", "as-is"] = "upstream" if upstream else "as-is"
    loaded, compiled, secrets = options.load(inventory, told.extra, told.limit, told.roles, lock)
    if name == "plan":
        options.refuse_errors(loaded, compiled.nodes, told.roles)
    with listener_for(told.form, told.no_color) as listener:
        chosen = RunOptions(
            command=name,
            inventory=loaded,
            connections=Connections(passwords_for(loaded)),
            secrets=secrets,
            whole=compiled.all_nodes,
            notices=compiled.notices,
            listener=listener,
            jobs=told.jobs,
        )
        report = run(compiled.resources, chosen)
    emit(report, told.form, told.output, no_color=told.no_color, verbose=told.verbose)
    if save is not None:
        from sparkops.operate import plans

        plans.keep(save, report.plan, loaded, compiled, extra=told.extra, limit=told.limit, roles=told.roles)
        again = [word for key, value in told.extra for word in ("-e", f"{key}={value}")]
        words = shlex.join(["sparkops", "apply", str(inventory), "--plan", str(save), *again])
        print(f"kept in {save}; to carry it out: {words}", file=sys.stderr)
    return report.exit_status
