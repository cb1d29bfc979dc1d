"""The same ten resources against pyinfra, BundleWrap and Ansible: a check that finds nothing, and a first apply.

Each run starts cold, all tools in turn in each round. The peers live in an environment of their own under the user's
cache. A subset of fleets and delays replaces its part of the earlier results and leaves the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import trials
from bench.fleet import MACHINES, fresh, hosts
from bench.machine import Machine
from bench.peers_work import tools
from bench.timing import ratio

PACKAGES = {"pyinfra": "3.10.0", "bundlewrap": "5.2.0", "ansible-core": "2.19.14"}
FLEETS = ((1, 0), (10, 0), (50, 0), (100, 0), (1, 100), (10, 100), (50, 100))
"""Nodes, and milliseconds that each round trip takes longer."""
FIRST = MACHINES
"""Nodes of the first apply: no two names on one machine, whose account files all would wait for."""
ROUNDS = 5
PATIENCE = 12.0
"""Seconds after which a tool has no further rounds in a fleet."""


def measure(
    sizes: Sequence[int], delays: Sequence[int], without: Sequence[str], earlier: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures for each fleet and delay (ms of a round trip), `without` some tools; `earlier` are those of the file that
    this replaces."""
    programs = installed()
    fleets = {(each["nodes"], each["delay_ms"]): each for each in earlier.get("fleets", ())}
    first = earlier.get("first")
    with tempfile.TemporaryDirectory(prefix="b") as name, fresh(Path(name)) as nodes:
        folder = Path(name)
        for size, delay in FLEETS:
            if (sizes and size not in sizes) or (delays and delay not in delays):
                continue
            fleets[size, delay] = _fleet(nodes, size, delay, folder, programs, without)
            if (size, delay) == (10, 0):
                first = _first(nodes, folder, programs)
    ordered = [fleets[key] for key in sorted(fleets, key=lambda key: (key[1], key[0]))]
    return {"versions": PACKAGES, "fleets": ordered, "first": first}


def installed() -> Path:
    """Folder of the peers' programs, installed if they are not there in these versions."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = cache / "sparkops-bench" / "peers"
    wanted = [f"{name}=={version}" for name, version in PACKAGES.items()]
    note = environment / "installed"
    if not note.exists() or note.read_text().split() != wanted:
        venv.create(environment, with_pip=True, clear=True)
        subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "-qq", *wanted], check=True)
        note.write_text("\n".join(wanted))
    return environment / "bin"


def _fleet(
    nodes: Sequence[Machine], size: int, delay: int, folder: Path, programs: Path, without: Sequence[str]
) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with hosts(nodes, size, delay, folder) as fleet:
        all_tools = [tool for tool in tools(folder, fleet, programs) if tool.name not in without]
        ours = next(tool for tool in all_tools if tool.name == "sparkops")
        trials.apply(folder)(ours)
        figures, failed = trials.interleaved(all_tools, trials.check(folder), fleet, ROUNDS, PATIENCE)
    if not {"sparkops", "floor"} <= figures.keys():
        raise trials.Failed(str(failed))
    found = {
        "nodes": size,
        "delay_ms": delay,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "load_before": round(load, 1),
        "tools": figures,
        "failed": {**failed, **dict.fromkeys(without, "left out")},
        "to_floor": ratio(figures, "sparkops", "floor"),
        "faster_than": {
            name: ratio(figures, name, "sparkops") for name in figures if name not in ("sparkops", "floor")
        },
    }
    print(
        json.dumps({key: found[key] for key in ("nodes", "delay_ms", "to_floor", "faster_than", "failed")}), flush=True
    )
    return found


def _first(nodes: Sequence[Machine], folder: Path, programs: Path) -> dict[str, Any]:
    """The first apply of the same work, everything taken away before each run."""
    with hosts(nodes, FIRST, 0, folder) as fleet:
        acting = [tool for tool in tools(folder, fleet, programs) if tool.apply]
        figures, failed = trials.interleaved(
            acting, trials.apply(folder), fleet, 3, PATIENCE, before=lambda: trials.wipe(nodes, fleet)
        )
        trials.wipe(nodes, fleet)
    return {
        "nodes": FIRST,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "tools": figures,
        "failed": failed,
        "faster_than": {name: ratio(figures, name, "sparkops") for name in figures if name != "sparkops"},
    }
