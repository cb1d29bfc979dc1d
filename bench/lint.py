"""Lint and fit: an inventory of 100 nodes and 20 services, one pasted line, and a repository that is in no knowledge.

A line's CPU seconds are held against bare Python's; the repository is on a hub on this machine and was read before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from bench.timing import of_children, ratio, side_by_side

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
    """CPU seconds of the inventory (limit: 1), and the lines' ratios to `python -c pass` (limit: 15)."""
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
    figures = _lines()
    return {
        "nodes": NODES,
        "services": SERVICES,
        "findings": findings,
        "fits": fits,
        "cpu_seconds": spent,
        "seconds": figures,
        "ratios": {name: ratio(figures, name, "python -c pass") for name in figures if name != "python -c pass"},
        "limits": {"cpu_seconds": 1, "ratios": 15},
    }


def _lines() -> dict[str, dict[str, Any]]:
    """Seconds of one pasted line, of a listed model and of a repository that the cache has."""
    from tests.lab import model
    from tests.lab.hub import Hub

    def run(name: str, line: str, **env: str) -> Callable[[], object]:
        words = [sys.executable, "-m", "sparkops", name, "--serve", line, "--engine", "0.33.0"]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | env
        return lambda: subprocess.run(words, check=False, stdout=subprocess.DEVNULL, env=environment)

    with Hub() as hub, tempfile.TemporaryDirectory() as folder:
        hub.add_repo("birds/sparrow", model.write(Path(folder) / "model"))
        places = {"HF_ENDPOINT": hub.endpoint, "XDG_CACHE_HOME": folder}
        unknown = {
            name: run(name, "vllm serve birds/sparrow --max-model-len 4096", **places) for name in ("lint", "fit")
        }
        unknown["fit"]()
        return side_by_side(
            {
                "python -c pass": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
                "lint --serve": run("lint", LINE),
                "fit --serve": run("fit", LINE),
                "lint --serve, repository": unknown["lint"],
                "fit --serve, repository": unknown["fit"],
            },
            ROUNDS,
            of_children,
        )
