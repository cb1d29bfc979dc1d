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
from typing import Any, Literal

NODES, APPLIED, FILES = 1000, 50, 6


def measure() -> dict[str, Any]:
    """Seconds of a drift over all nodes that finds nothing, its CPU seconds and the peak of its memory, the nodes'
    threads included; and of a first apply of fewer nodes the longest wait of a step that nothing kept."""
    load = os.getloadavg()[0]
    figures = {"drift": _process("drift", NODES), "apply": _process("apply", APPLIED)}
    return {"load_before": round(load, 1), **figures, "limits": {"seconds": 60, "lag": 0.25}}


def _process(command: str, nodes: int) -> Any:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        environment = {**os.environ, "XDG_STATE_HOME": f"{folder}/state"}
        argv = [sys.executable, "-m", "bench.simulated", command, folder, str(nodes)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def declared(folder: Path, nodes: int) -> str:
    """The inventory's text; its role is written beside it."""
    base = f"{folder}/{{{{ node.name }}}}"
    files = "".join(f"  - file: {base}/conf/{n}\n    content: '{{{{ node.name }}}} has {n}'\n" for n in range(FILES))
    role = folder / "roles" / "bench" / "role.yml"
    role.parent.mkdir(parents=True)
    role.write_text(
        "summary: The work of the benchmark\nscope: node\nresources:\n"
        f"  - directory: {base}\n  - directory: {base}/conf\n{files}"
        f"  - link: {base}/current\n    target: {base}/conf\n"
    )
    hosts = "".join(f"  {name}: {{connection: {{state_dir: {folder}/{name}/state}}}}\n" for name in _names(nodes))
    return (
        "version: 1\ncluster: bench\nconnection: {type: local}\nroles: [bench]\n"
        f"accept: [{{id: machine-with-two-names, reason: threads of one process}}]\nnodes:\n{hosts}"
    )


def _names(nodes: int) -> list[str]:
    return [f"n{n:04}" for n in range(nodes)]


def _bring(folder: Path, nodes: int) -> None:
    """Everything as it is declared."""
    for name in _names(nodes):
        (folder / name / "conf").mkdir(parents=True)
        (folder / name / "current").symlink_to(folder / name / "conf")
        for n in range(FILES):
            (folder / name / "conf" / str(n)).write_text(f"{name} has {n}")


def main(command: Literal["drift", "apply"], folder: Path, nodes: int) -> None:
    """One process: what `sparkops drift` or `apply` with `--role bench` does, over such nodes."""
    from sparkops.compile.compiler import compile_inventory
    from sparkops.core import events
    from sparkops.core.events import Event
    from sparkops.inventory.load import load
    from sparkops.inventory.secrets import Secrets
    from sparkops.reconcile.planning import RunOptions
    from sparkops.reconcile.run import run
    from sparkops.reports.formats import rendered
    from sparkops.reports.record import Record
    from tests.in_process import InProcess
    from tests.lags import lags

    path = folder / "inventory.yml"
    path.write_text(declared(folder, nodes))
    if command == "drift":
        _bring(folder, nodes)
    log: list[Event] = []
    began, cpu = time.perf_counter(), time.process_time()
    inventory, secrets = load(path), Secrets()
    compiled = compile_inventory(inventory, roles=["bench"], secrets=secrets)
    record = Record.begin("bench", command)

    def listen(event: Event) -> None:
        log.append(event)
        record.write(event)

    options = RunOptions(
        command=command,
        inventory=inventory,
        connections=InProcess(),
        secrets=secrets,
        agree=(lambda report: True) if command == "apply" else None,
        listener=listen if command == "apply" else events.silent,
    )
    report = record.finish(run(compiled.resources, options))
    text = rendered(report, "text")
    assert report.exit_status == 0, text[-2000:]
    figures = {
        "nodes": nodes,
        "resources": report.plan.total,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time() - cpu, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "lag": round(max(lags(report.plan.steps, log).values(), default=0.0), 3),
    }
    print(json.dumps(figures), flush=True)
    os._exit(0)  # the nodes' threads need not be waited for


if __name__ == "__main__":
    main("apply" if sys.argv[1] == "apply" else "drift", Path(sys.argv[2]), int(sys.argv[3]))
