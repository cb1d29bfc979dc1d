"""What the launcher of an idle service costs its node: the CPU time of its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab
from tests.lab.node import Node

SECONDS = 440
"""Time for two completions of an engine that nobody asks: one in each third of the watchdog's 600 s."""
MOST = 0.2
"""Percent of a core that the launcher may use."""
TICKS = os.sysconf("SC_CLK_TCK")


def measure() -> dict[str, Any]:
    """Percent of a core of the launcher's own process (its threads counted), and the completions that it asked for."""
    load = os.getloadavg()[0]
    with Lab.session() as lab, tempfile.TemporaryDirectory(prefix="b") as name:
        node = lab.add_node()
        try:
            _serve(lab, node, Path(name))
            pid = node.text("systemctl", "show", "-P", "MainPID", "q.service")
            before, asked = _used(node, pid), _completions(node)
            started = time.monotonic()
            time.sleep(SECONDS)
            seconds = time.monotonic() - started
            used = _used(node, pid) - before
            return {
                "load_before": round(load, 1),
                "seconds": round(seconds),
                "cpu_seconds": round(used, 2),
                "percent_of_a_core": round(100 * used / seconds, 3),
                "most": MOST,
                "completions": _completions(node) - asked,
            }
        finally:
            lab.remove_node(node)


def _serve(lab: Lab, node: Node, folder: Path) -> None:
    """The lab's small engine as a service with the default time-outs, and a model of one byte."""
    header = json.dumps({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    node.exec("mkdir", "-p", "/srv/tiny")
    node.write("/srv/tiny/config.json", b"{}")
    node.write("/srv/tiny/model.safetensors", len(header).to_bytes(8, "little") + header + b"\0")
    service = {
        "nodes": [node.name],
        "image": {"pull": lab.engine_image.reference},
        "model": "/srv/tiny",
        "command": ["serve"],
        "gpus": None,
        "container": {"mounts": [{"source": "/srv/tiny", "target": "/srv/tiny"}]},
        "limits": {"shm_size_gib": None, "ulimits": {"memlock": None, "stack": None, "nofile": None}},
    }
    inventory = {
        "version": 1,
        "cluster": "bench",
        "connection": {"user": "root"},
        "nodes": {node.name: {}},
        "services": {"q": service},
    }
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    roles = [word for role in ("image", "service", "health") for word in ("--role", role)]
    subprocess.run(
        [sys.executable, "-m", "sparkops", "apply", "inventory.yml", "--yes", *roles],
        check=True,
        cwd=folder,
        env={**os.environ, "SPARKOPS_SSH_CONFIG": str(lab.ssh_config), "XDG_STATE_HOME": str(folder / "state")},
        stdout=subprocess.DEVNULL,
    )


def _used(node: Node, pid: str) -> float:
    """Seconds of the CPU that a process used. Source: proc(5), fields 14 and 15 of stat."""
    fields = node.text("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _completions(node: Node) -> int:
    """Tokens that the engine made: each completion of the launcher has one."""
    lines = node.text("curl", "-sS", "http://127.0.0.1:8000/metrics").splitlines()
    return int(sum(float(each.split()[-1]) for each in lines if each.startswith("vllm:generation_tokens_total")))
