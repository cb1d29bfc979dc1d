"""How much of the CPU a command takes to start, against bare Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.timing import of_children, ratio, side_by_side

ROUNDS = 15


def measure() -> dict[str, Any]:
    """Medians and their ratios to `python -c pass`."""
    script = str(Path(sys.executable).with_name("sparkops"))

    def run(*argv: str) -> Callable[[], object]:
        return lambda: subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    figures = side_by_side(
        {
            "python -c pass": run(sys.executable, "-c", "pass"),
            "--version": run(script, "--version"),
            "--help": run(script, "--help"),
            "plan --help": run(script, "plan", "--help"),
        },
        ROUNDS,
        of_children,
    )
    return {
        "seconds": figures,
        "ratios": {name: ratio(figures, name, "python -c pass") for name in figures if name != "python -c pass"},
    }
