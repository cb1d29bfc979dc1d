"""Lint and fit: an inventory of 100 nodes and 20 services, and one pasted line against bare Python. No network."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench.timing import ratio, side_by_side

NODES, SERVICES, ROUNDS = 100, 20, 9
LINE = "vllm serve Intel/Qwen3.5-122B-A10B-int4-AutoRound --kv-cache-dtype fp8 --enable-prefix-caching"


def text() -> str:
    """The inventory's text: services of five nodes each, with a line that the rules have something to say about."""
    nodes = "".join(f"  spark-{n:03}: {{host: 192.0.2.{n}}}\n" for n in range(NODES))
    names = [", ".join(f"spark-{n * 5 + each:03}" for each in range(5)) for n in range(SERVICES)]
    services = "".join(
        f"  svc{n:02}:\n    recipe: qwen3.5-122b-a10b-int4\n    nodes: [{names[n]}]\n"
        "    serve: {pipeline-parallel-size: 5, speculative-config: {method: mtp, num_speculative_tokens: 2}}\n"
        for n in range(SERVICES)
    )
    return f"version: 1\ncluster: bench\nnodes:\n{nodes}services:\n{services}"


def measure() -> dict[str, Any]:
    """CPU seconds of the inventory (limit: 1), and the line's ratios to `python -c pass` (limit: 20)."""
    from sparkops.fit.services import fit_inventory
    from sparkops.inventory.load import load
    from sparkops.lint.declared import lint_inventory

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.yml"
        path.write_text(text())
        before = time.process_time()
        inventory = load(path)
        findings = len(lint_inventory(inventory, date(2026, 1, 1)))
        fits = len(fit_inventory(inventory))
        spent = time.process_time() - before
    lines = {
        name: [sys.executable, "-m", "sparkops", name, "--serve", LINE, "--engine", "0.33.0"]
        for name in ("lint", "fit")
    }
    figures = side_by_side(
        {
            "python -c pass": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            "lint --serve": lambda: subprocess.run(lines["lint"], check=False, stdout=subprocess.DEVNULL),
            "fit --serve": lambda: subprocess.run(lines["fit"], check=True, stdout=subprocess.DEVNULL),
        },
        ROUNDS,
    )
    return {
        "nodes": NODES,
        "services": SERVICES,
        "findings": findings,
        "fits": fits,
        "cpu_seconds": spent,
        "seconds": figures,
        "ratios": {name: ratio(figures, name, "python -c pass") for name in ("lint --serve", "fit --serve")},
        "limits": {"cpu_seconds": 1, "ratios": 20},
    }
