"""What the launcher of an idle service costs its node: the CPU time of its watching, beside a small engine.

The launcher's own file runs in a process as on a node, without the container: the engine is a process of this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sparkops.compile.compiler import compile_inventory
from sparkops.compile.launcher_file import launcher_file
from sparkops.core.secrets import Content
from sparkops.inventory.load import load
from sparkops.resources.file import File
from tests.lab import engine

SECONDS = 430
"""Time for two completions of an engine that nobody asks: one in each third of the watchdog's 600 s."""
MOST = 0.2
"""Percent of a core that the launcher may use."""
METRICS = 700
"""Lines of /metrics beside those of the lab's small engine; vLLM has about so many, most of them of histograms."""

WATCH = """
import resource
spec = json.loads(open(sys.argv[1]).read())
watching = Launcher(sys.argv[1], {"WATCHDOG_USEC": "600000000", "NOTIFY_SOCKET": "@nobody"}, Docker("/nowhere"))
watching.listener = Listener(spec["port"], "127.0.0.1", "")
watching.api = Api(watching.listener, "", Question("m", spec["probe"]["prompt"]))
before = resource.getrusage(resource.RUSAGE_SELF)
threading.Timer(float(sys.argv[2]), watching.stopping.set).start()
watching._watch()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def measure(seconds: float = SECONDS) -> dict[str, Any]:
    """Percent of a core, and the completions that were asked for meanwhile."""
    load = os.getloadavg()[0]
    served = _Engine(engine.Arguments(["serve", "m", "--port", "0"]), engine.Mode(""))
    handler = type("Handler", (engine.Handler,), {"engine": served, "log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="b") as name:
        program, spec = Path(name) / "launcher.py", Path(name) / "q.json"
        program.write_text(launcher_file().rpartition('\nif __name__ == "__main__":')[0] + WATCH)
        spec.write_bytes(_spec(int(server.server_address[1]), Path(name)))
        argv = [sys.executable, "-I", "-S", str(program), str(spec), str(seconds)]
        used = float(subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    server.shutdown()
    return {
        "load_before": round(load, 1),
        "seconds": seconds,
        "cpu_seconds": round(used, 2),
        "percent_of_a_core": round(100 * used / seconds, 3),
        "most": MOST,
        "completions": served.completions,
    }


class _Engine(engine.Engine):
    """The small engine with as many metrics as the real one."""

    def metrics(self) -> str:
        name = "vllm:time_to_first_token_seconds_bucket"
        return super().metrics() + "".join(f'{name}{{engine="0",le="{n}"}} {n}.0\n' for n in range(METRICS))


def _spec(port: int, folder: Path) -> bytes:
    """The launcher's spec of a service on this port, as an apply would bring it."""
    inventory = folder / "inventory.yml"
    inventory.write_text(
        f"version: 1\ncluster: bench\nnodes: {{a: {{connection: {{state_dir: {folder}}}}}}}\n"
        "services:\n  q: {nodes: [a], image: {pull: 'vllm/vllm-openai:v0.33.0'}, model: m, "
        f"port: {port}}}\n"
    )
    resources = compile_inventory(load(inventory), roles=["service"]).resources
    (spec,) = (each for each in resources if isinstance(each, File) and each.name.endswith("/q.json"))
    assert isinstance(spec.content, Content)
    return spec.content.encode()
