"""How fast the output of a program comes back: `sparkops exec` beside `ssh`, for short and for usual lines."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.fleet import fresh, hosts
from bench.timing import ratio, side_by_side

ROUNDS = 5
MEGABYTES = 100
LINES = {"lines of 2 bytes": "y", "lines of 80 bytes": "y" * 79}
LEAST = 0.25
"""The part of ssh's speed that is asked for."""


def measure() -> dict[str, Any]:
    """Seconds for MEGABYTES of each sort of lines to /dev/null, start and connection included, and the speed's part."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="b") as name, fresh(Path(name)) as nodes:
        folder = Path(name)
        with hosts(nodes, 1, 0, folder) as found:
            inventory = folder / "inventory.yml"
            inventory.write_text(
                f"version: 1\ncluster: bench\nconnection: {{user: root}}\nnodes: {{{found[0].name}: {{}}}}\n"
            )
            sorts = {name: _sort(folder, inventory, found[0].name, line) for name, line in LINES.items()}
    return {"load_before": round(load, 1), "megabytes": MEGABYTES, "least": LEAST, "sorts": sorts}


def _sort(folder: Path, inventory: Path, host: str, line: str) -> dict[str, Any]:
    script = f"yes {line} | head -c {MEGABYTES}000000"
    ssh = ["ssh", "-F", str(folder / "ssh_config"), host, script]
    ours = [sys.executable, "-m", "sparkops", "exec", "-i", str(inventory), host, "--", "sh", "-c", script]
    figures = side_by_side({"ssh": _run(ssh, folder), "sparkops": _run(ours, folder)}, ROUNDS)
    return {"seconds": figures, "speed_of_ssh": round(1 / ratio(figures, "sparkops", "ssh"), 2)}


def _run(argv: list[str], folder: Path) -> Callable[[], object]:
    environment = {**os.environ, "SPARKOPS_SSH_CONFIG": str(folder / "ssh_config")}
    return lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environment)
