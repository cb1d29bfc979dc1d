"""Loading an inventory of 100 nodes and 20 services, and compiling it to resources, without a network."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.timing import side_by_side

NODES, SERVICES, ROUNDS = 100, 20, 7


def text() -> str:
    """The inventory's text."""
    nodes = "".join(f"  spark-{n:03}: {{host: 192.0.2.{n}}}\n" for n in range(NODES))
    services = "".join(
        f"  svc{n:02}:\n    nodes: [spark-{n * 5:03}]\n    port: 8000\n    image: {{pull: 'vllm/vllm:1'}}\n"
        f"    checkpoint: {{repository: org/model, revision: main}}\n    serve: {{max-model-len: 131072}}\n"
        for n in range(SERVICES)
    )
    return f"version: 1\ncluster: bench\nconnection: {{user: root}}\nnodes:\n{nodes}services:\n{services}"


def measure() -> dict[str, Any]:
    """Seconds to load, and to load and compile."""
    from sparkops.compile.compiler import compile_inventory
    from sparkops.inventory.load import load
    from sparkops.inventory.secrets import Secrets

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.yml"
        path.write_text(text())
        resources = compile_inventory(load(path), secrets=Secrets()).resources
        figures = side_by_side(
            {"load": lambda: load(path), "load and compile": lambda: compile_inventory(load(path), secrets=Secrets())},
            ROUNDS,
        )
    return {"nodes": NODES, "services": SERVICES, "resources": len(resources), "seconds": figures}
