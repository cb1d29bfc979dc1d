"""Proving a checkpoint on its node: all of it against openssl on all cores, and an unchanged one, which is not read."""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.timing import ratio, side_by_side
from sparkops.core.digests import sha256
from sparkops.worker.calls import Call
from sparkops.worker.kinds import checkpoint
from sparkops.worker.system import jobs

ROUNDS = 3
FILES, SIZE = 8, 1 << 30
SMALL = 1000


def measure() -> dict[str, Any]:
    """Seconds of both, and milliseconds of the CPU for the unchanged one."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        folder = Path(place)
        jobs.RUN = str(folder / "run")
        return {**_all(folder), **_unchanged(folder), "limits": {"ratio": 0.9, "again_ms": 50}}


def _all(folder: Path) -> dict[str, Any]:
    block = random.Random(1).randbytes(1 << 20)
    args = _checkpoint(folder / "large", FILES, [block] * (SIZE >> 20))
    paths = sorted(str(path) for path in (folder / "large").glob("*.safetensors"))
    workers = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]

    def openssl() -> None:
        subprocess.run(
            ["xargs", "-P", str(workers), "-n", "1", "openssl", "dgst", "-sha256"],
            input="\n".join(paths), text=True, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def sparkops() -> None:
        done = checkpoint.verify(_call(), {**args, "again": True})
        assert done["hashed"] == FILES * SIZE and not done["wrong"], done

    def warm() -> None:
        subprocess.run(["cat", *paths], stdout=subprocess.DEVNULL, check=True)

    works = {"before openssl": warm, "openssl": openssl, "before sparkops": warm, "sparkops": sparkops}
    seconds = side_by_side(works, ROUNDS)
    return {
        "files": FILES,
        "file_mib": SIZE >> 20,
        "workers": workers,
        "load_before": round(load, 1),
        "seconds": seconds,
        "ratio": ratio(seconds, "openssl", "sparkops"),
        "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10,
    }


def _unchanged(folder: Path) -> dict[str, Any]:
    args = _checkpoint(folder / "small", SMALL, [b"x" * 1000])
    checkpoint.verify(_call(), {**args, "again": False})
    ask = {"folder": args["folder"], "state_dir": args["state_dir"], "owner": "", "deep": False}
    looks, again = [], []
    for _ in range(20):
        before = time.process_time()
        found = checkpoint.observe(ask)
        looks.append(time.process_time() - before)
        assert found is not None and found["hashed"]
        before = time.process_time()
        assert checkpoint.verify(_call(), {**args, "again": False})["hashed"] == 0
        again.append(time.process_time() - before)
    return {
        "small_files": SMALL,
        "again_ms": round(statistics.median(looks) * 1000, 1),
        "verify_ms": round(statistics.median(again) * 1000, 1),
    }


def _checkpoint(folder: Path, count: int, blocks: list[bytes]) -> dict[str, str]:
    """A folder with its record, as a fetch leaves it; how `verify` is asked for it."""
    (folder / ".sparkops").mkdir(parents=True)
    files = []
    for number in range(count):
        path = folder / f"model-{number:05}.safetensors"
        path.write_bytes(b"%05d" % number)
        with path.open("ab") as file:
            file.writelines(blocks)
            file.truncate(sum(map(len, blocks)))
        files.append([path.name, path.stat().st_size, sha256(path.read_bytes())])
    record = {"version": 1, "repository": "org/bench", "commit": "0" * 40, "files": files}
    (folder / ".sparkops" / "manifest.json").write_text(json.dumps(record))
    return {"folder": str(folder), "state_dir": str(folder.parent / "state")}


def _call() -> Call:
    return Call(1, lambda message: None, threading.Event())
