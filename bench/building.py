"""A hybrid build against `cp` of the same bytes, on one disk: every shard is rewritten, hashed and on the disk.

`cp` is measured as it is and followed by `sync` of its files: the build, too, returns only when the disk has it all.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.timing import ratio, summary
from tests.lab.hub import Hub
from tests.worker import checkpoints_made as made
from tests.worker.builds import Build, Donor

ROUNDS, SHARDS = 3, 8
GEOMETRY = replace(
    made.GEOMETRY, hidden_size=2048, moe_intermediate_size=2048, shared_expert_intermediate_size=256, num_experts=98
)
"""About 4 GB in INT4; all shards hold a shared expert or a part of one."""
LIMITS = {"ratio": 0.7, "memory_mib": 256}


def measure() -> dict[str, Any]:
    """Seconds of build and cp in turn, how fast the build is to cp, and the most memory of all its processes."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SPARKOPS_BENCH_DISK")) as folder, Hub() as hub:
        base, eight = Path(folder, "base"), Path(folder, "fp8")
        making = f"from bench.building import make; make({str(base)!r}, {str(eight)!r})"
        subprocess.run([sys.executable, "-c", making], check=True)  # so that this process stays as small as a worker
        donor = Donor("o/fp8", eight, hub, hub.add_repo("o/fp8", eight))
        build = Build(base, Path(folder, "staging"), [{"hybrid": {"donor": 0, "layers": "shared_expert"}}], [donor])
        spec = build.spec()
        spec["known"] = known(base, spec["files"])
        build.spec = lambda: spec  # type: ignore[method-assign]
        memory, taken = Memory(), {name: list[float]() for name in ("cp", "cp and sync", "build")}
        spent = {name: list[float]() for name in taken}
        for _ in range(ROUNDS):
            for name, seconds in taken.items():
                for each in (build.staging, Path(folder, "copy")):
                    shutil.rmtree(each, ignore_errors=True)
                warm(base)
                os.sync()
                started, before = time.perf_counter(), cpu()
                if name == "build":
                    with memory:
                        build.run()
                else:
                    then = ' && sync "$2"/*' if name == "cp and sync" else ""
                    subprocess.run(["sh", "-c", f'cp -r "$1" "$2"{then}', "sh", base, f"{folder}/copy"], check=True)
                seconds.append(time.perf_counter() - started)
                spent[name].append(cpu() - before)
        size = sum(path.stat().st_size for path in base.iterdir())
    figures = {name: summary(seconds) for name, seconds in taken.items()}
    return {
        "bytes": size,
        "shards": SHARDS,
        "load": [round(each, 1) for each in os.getloadavg()],
        "seconds": figures,
        "cpu_seconds": {name: round(statistics.median(each), 2) for name, each in spent.items()},
        "ratios": {name: ratio(figures, name, "build") for name in ("cp", "cp and sync")},
        "memory_mib": round(memory.most / (1 << 20)),
        "limits": LIMITS,
    }


def make(base: str, donor: str) -> None:
    """The base and the donor; the donor's routed experts are left out, as nothing of them is read."""
    made.save(Path(base), made.autoround(GEOMETRY, mtp=False), made.autoround_config(GEOMETRY), SHARDS)
    made.save(Path(donor), made.fp8(replace(GEOMETRY, num_experts=1)), made.config(GEOMETRY))


def cpu() -> float:
    """Seconds of the CPU that the ended processes below this one have used."""
    times = os.times()
    return times.children_user + times.children_system


def known(folder: Path, files: list[list[Any]]) -> dict[str, str]:
    """What an index of proofs says of a base that was verified before."""
    from sparkops.programs.checkpoints.proof import identity

    return {identity((folder / path).lstat()): oid for path, _, oid in files}


def warm(folder: Path) -> None:
    """Everything starts with the files in memory: a build gives them back."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


class Memory:
    """The most memory that the processes below this one have held together, each shared page counted once."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()

    def __enter__(self) -> None:
        self._over.clear()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, sum(map(proportional, below(os.getpid()))))


def below(pid: int) -> list[int]:
    """All processes that descend from one."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(each) for each in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *below(child)]
    return found


def proportional(pid: int) -> int:
    """Bytes of a process' own pages and its share of the common ones."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)
