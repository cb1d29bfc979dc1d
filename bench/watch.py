"""Rounds of `sparkops watch` over kept connections against cold runs of `sparkops drift`, and the watcher's memory.

The nodes are names for one sshd on this machine, each with ten files of its own, as declared: every round is a worker's
answer per node. The watcher waits for nothing between rounds, so that its rounds can be timed by their reports.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.cost import run
from tests.unit.nodes.sshd import Sshd

NODES = 50
FILES = 10
ROUNDS = 500
COLD = 5
"""Cold runs before and after the rounds."""
WARM = 130
"""First rounds that are not counted for the memory's slope: a report knows up to 120 earlier runs."""
MOST = 0.5
"""What a round may take of a cold run."""
MOST_MEMORY = 150
"""MiB that the watcher may have."""

WATCH = """
import json, os, sys, time
from sparkops.library import load
from sparkops.watching.loop import Audience, Orders, Rhythm, Watcher

orders, rounds, page = Orders(), int(sys.argv[1]), os.sysconf("SC_PAGE_SIZE")

def show(report, changes):
    global rounds
    assert report.exit_status == 0, report
    resident = int(open("/proc/self/statm").read().split()[1]) * page
    print(json.dumps([time.monotonic(), time.process_time(), resident]), flush=True)
    rounds -= 1
    if rounds <= 0:
        orders.stop.set()

audience = Audience(show=show, say=lambda message: print(message.full, file=sys.stderr))
Watcher(lambda: load(roles=["bench"]), Rhythm(interval=0.001), orders, audience).run()
"""


def measure() -> dict[str, Any]:
    """Medians of a round and of a cold run, the memory and how it grows."""
    load = os.getloadavg()[0]
    with _fleet() as folder:
        environment = {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "SPARKOPS_SSH_CONFIG": str(folder / "ssh_config"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        _run(folder, environment, "apply", "--yes")
        cold = [_run(folder, environment, "drift") for _ in range(COLD)]
        argv = [sys.executable, "-c", WATCH, str(ROUNDS)]
        done = subprocess.run(argv, cwd=folder, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE)
        cold += [_run(folder, environment, "drift") for _ in range(COLD)]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    taken = [later[0] - before[0] for before, later in itertools.pairwise(rounds)]
    used = [later[1] - before[1] for before, later in itertools.pairwise(rounds)]
    memory = [each[2] / (1 << 20) for each in rounds]
    cold_run, one_round = statistics.median(cold), statistics.median(taken)
    return {
        "load_before": round(load, 1),
        "nodes": NODES,
        "resources": NODES * FILES,
        "rounds": len(rounds),
        "cold_seconds": round(cold_run, 2),
        "round_seconds": round(one_round, 3),
        "round_cpu_seconds": round(statistics.median(used), 3),
        "ratio": round(one_round / cold_run, 3),
        "most": MOST,
        "memory_mib": round(max(memory), 1),
        "most_memory_mib": MOST_MEMORY,
        "memory_first_mib": round(memory[min(WARM, len(memory) - 1)], 1),
        "slope_kib_per_round": round(1024 * _slope(memory[WARM:]), 2),
    }


def _slope(values: Sequence[float]) -> float:
    """Growth per round, by least squares."""
    return statistics.linear_regression(range(len(values)), values).slope if len(values) > 1 else 0.0


def _run(folder: Path, environment: dict[str, str], *words: str) -> float:
    """Seconds of a run that must end well."""
    cost = run([sys.executable, "-m", "sparkops", *words, "--role", "bench"], folder, environment)
    assert cost.status == 0, cost.output[-2000:]
    return cost.seconds


@contextmanager
def _fleet() -> Iterator[Path]:
    """A folder with an inventory of many names for one sshd, and the way to them."""
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = Path(name)
        server = Sshd(folder / "sshd")
        try:
            _write(folder, server)
            yield folder
        finally:
            server.stop()


def _write(folder: Path, server: Sshd) -> None:
    names = [f"host-{number:02}" for number in range(NODES)]
    (folder / "files").mkdir()
    (folder / "roles" / "bench").mkdir(parents=True)
    files = "".join(
        f"  - file: {folder}/files/{{{{ node.name }}}}-{n}\n    content: '{{{{ node.name }}}} has {n}'\n"
        for n in range(FILES)
    )
    (folder / "roles/bench/role.yml").write_text(f"summary: files\nscope: node\nresources:\n{files}")
    key = " ".join((folder / "sshd" / "host_ed25519.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text("".join(f"{each} {key}\n" for each in names))
    (folder / "ssh_config").write_text(
        f"Host *\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n  IdentityFile {server.key}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
        + "".join(f"Host {each}\n  HostKeyAlias {each}\n" for each in names)
    )
    nodes = "".join(f"  {each}: {{connection: {{state_dir: {folder}/state-{each}}}}}\n" for each in names)
    (folder / "inventory.yml").write_text(
        "version: 1\ncluster: bench\nroles: [bench]\nconnection: {become: false}\n"
        f"accept: [{{id: machine-with-two-names, reason: many names for one machine}}]\nnodes:\n{nodes}"
    )
