"""A thousand nodes that are threads of the controller: the same work as `peers`, accounts aside, without a network.

What is left is the controller's own: loading, compiling, asking, comparing, the record and the report.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NODES, FILES = 1000, 6


def measure() -> dict[str, Any]:
    """Seconds of a drift over all nodes that finds nothing, its CPU seconds and the peak of its memory, the nodes'
    threads included."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        environment = {**os.environ, "XDG_STATE_HOME": f"{folder}/state"}
        argv = [sys.executable, "-m", "bench.simulated", folder, str(NODES)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return {"load_before": round(load, 1), "nodes": NODES, **json.loads(done.stdout), "limits": {"seconds": 60}}


def written(folder: Path, nodes: int) -> str:
    """The inventory's text. Its role is written beside it, and all that it declares as it is declared."""
    base = f"{folder}/{{{{ node.name }}}}"
    files = "".join(f"  - file: {base}/conf/{n}\n    content: '{{{{ node.name }}}} has {n}'\n" for n in range(FILES))
    role = folder / "roles" / "bench" / "role.yml"
    role.parent.mkdir(parents=True)
    role.write_text(
        "summary: The work of the benchmark\nscope: node\nresources:\n"
        f"  - directory: {base}\n  - directory: {base}/conf\n{files}"
        f"  - link: {base}/current\n    target: {base}/conf\n"
    )
    names = [f"n{n:04}" for n in range(nodes)]
    for name in names:
        (folder / name / "conf").mkdir(parents=True)
        (folder / name / "current").symlink_to(folder / name / "conf")
        for n in range(FILES):
            (folder / name / "conf" / str(n)).write_text(f"{name} has {n}")
    hosts = "".join(f"  {name}: {{connection: {{state_dir: {folder}/{name}/state}}}}\n" for name in names)
    return (
        "version: 1\ncluster: bench\nconnection: {type: local}\nroles: [bench]\n"
        f"accept: [{{id: machine-with-two-names, reason: threads of one process}}]\nnodes:\n{hosts}"
    )


def main(folder: Path, nodes: int) -> None:
    """One process: what `sparkops drift --role bench` does, over such nodes."""
    from sparkops.compile.compiler import compile_inventory
    from sparkops.inventory.load import load
    from sparkops.inventory.secrets import Secrets
    from sparkops.reconcile.planning import RunOptions
    from sparkops.reconcile.run import run
    from sparkops.reports.formats import rendered
    from sparkops.reports.record import Record
    from tests.in_process import InProcess

    path = folder / "inventory.yml"
    path.write_text(written(folder, nodes))
    began, cpu = time.perf_counter(), time.process_time()
    inventory, secrets = load(path), Secrets()
    compiled = compile_inventory(inventory, roles=["bench"], secrets=secrets)
    options = RunOptions(command="drift", inventory=inventory, connections=InProcess(), secrets=secrets)
    report = Record("bench", "drift").finish(run(compiled.resources, options))
    text = rendered(report, "text")
    assert report.exit_status == 0, text[-2000:]
    figures = {
        "resources": report.plan.total,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time() - cpu, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # the nodes' threads need not be waited for


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
