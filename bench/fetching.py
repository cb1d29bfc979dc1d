"""Fetching a repository from a hub on this machine: a node's job, every byte hashed, beside `hf download` and curl.

All of it is in memory, so that no disk is measured: the repository, and what each of them writes. On a machine that
has other work, `chrt -r 1 python -m bench fetching` gives all three the cores before it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.timing import ratio, summary
from sparkops.resources.checkpoint import Checkpoint
from sparkops.worker.calls import Call
from sparkops.worker.kinds import checkpoint
from sparkops.worker.system import jobs

ROUNDS = 3
FILES, SIZE = 8, 512 << 20
CONNECTIONS, SEGMENT = 6, 64 << 20
REPOSITORY = "org/bench"


def measure() -> dict[str, Any]:
    """Seconds, CPU seconds and ratios of the three, in turn in each round."""
    with _memory() as folder:
        jobs.RUN = str(folder / "run")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        _write(folder / "repository")
        with _hub(folder / "repository") as (endpoint, commit):
            return _measured(folder, endpoint, commit)


def _measured(folder: Path, endpoint: str, commit: str) -> dict[str, Any]:
    load = os.getloadavg()[0]
    works: dict[str, Callable[[], None]] = {
        "hf download": lambda: _hf(folder / "hf", endpoint, commit),
        "curl": lambda: _curl(folder / "curl", endpoint, commit),
        "sparkops": lambda: _sparkops(folder / "sparkops", endpoint, commit),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    used: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            shutil.rmtree(folder / name.split()[0], ignore_errors=True)
            (folder / name.split()[0]).mkdir()
            before, started = _cpu(), time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - started)
            used[name].append(_cpu() - before)
            shutil.rmtree(folder / name.split()[0])
    gigabytes = FILES * SIZE / 1e9
    seconds = {name: summary(each) for name, each in taken.items()}
    return {
        "files": FILES,
        "bytes": FILES * SIZE,
        "connections": CONNECTIONS,
        "load_before": round(load, 1),
        "real_time": os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO),
        "versions": {
            "hf": importlib.metadata.version("huggingface_hub"),
            "curl": _said("curl", "--version").split()[1],
        },
        "seconds": seconds,
        "mb_per_second": {name: round(gigabytes * 1000 / each["median"]) for name, each in seconds.items()},
        "cpu_per_gb": {name: round(min(each) / gigabytes, 2) for name, each in used.items()},
        "ratios": {name: ratio(seconds, name, "sparkops") for name in works if name != "sparkops"},
        "limits": {"hf download": 1.0, "curl": 0.9},
    }


@contextlib.contextmanager
def _memory() -> Iterator[Path]:
    """A folder in memory; root only."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14g", "tmpfs", place], check=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def _cpu() -> float:
    """CPU seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write(folder: Path) -> None:
    folder.mkdir()
    block = random.Random(1).randbytes(1 << 20)
    for number in range(FILES):
        with (folder / f"model-{number:05}.safetensors").open("wb") as file:
            file.write(b"%05d" % number + block[5:])
            file.writelines([block] * ((SIZE >> 20) - 1))


@contextlib.contextmanager
def _hub(repository: Path) -> Iterator[tuple[str, str]]:
    """A hub in a process of its own: its address, and the commit that it serves."""
    argv = [sys.executable, "-m", "tests.lab.hub", f"{REPOSITORY}={repository}"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        commit = process.stdout.readline().split()[1]
        yield process.stdout.readline().strip(), commit
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _sparkops(folder: Path, endpoint: str, commit: str) -> None:
    """The job that an apply starts on a node, from its start to the published folder."""
    one = Checkpoint(
        node="a", name=str(folder / "model"), repository=REPOSITORY, revision=commit, endpoint=endpoint, adopt=(),
        state_dir=str(folder / "state"), connections=CONNECTIONS, segment=SEGMENT,
    ).prepare()  # fmt: skip
    assert one.manifest is not None
    act = {
        "manifest": one.manifest.canonical, "digest": one.manifest.digest, "mode": "fetch", "again": False, "adopt": [],
        "hub": one.asking(), "manner": one.manner,
    }  # fmt: skip
    call = Call(1, lambda message: None, threading.Event())
    checkpoint.converge(call, one.ask(), None, dict(one.desired() or {}), act)
    found = checkpoint.observe(one.ask())
    assert found is not None and found["hashed"], found


def _hf(folder: Path, endpoint: str, commit: str) -> None:
    """The hub's own client, which compares sizes; its cache is new each time."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    client = [sys.executable, "-c", "from huggingface_hub.cli.hf import main; main()"]
    argv = [*client, "download", REPOSITORY, "--revision", commit]
    _run([*argv, "--local-dir", str(folder / "model")], environment)
    assert sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors")) == FILES * SIZE


def _curl(folder: Path, endpoint: str, commit: str) -> None:
    """As many connections and ranges as the job has; the parts stay parts."""
    lines = []
    for number in range(FILES):
        url = f"{endpoint}/{REPOSITORY}/resolve/{commit}/model-{number:05}.safetensors"
        for start in range(0, SIZE, SEGMENT):
            lines += [f'url = "{url}"', f'range = "{start}-{min(SIZE, start + SEGMENT) - 1}"',
                      f'output = "{folder}/{number}.{start}"', "location", "silent", "fail", "next"]  # fmt: skip
    config = folder / "config"
    config.write_text("\n".join(lines[:-1]) + "\n")
    _run(["curl", "--parallel", "--parallel-max", str(CONNECTIONS), "--config", str(config)], dict(os.environ))
    assert sum(path.stat().st_size for path in folder.glob("*.*")) == FILES * SIZE


def _run(argv: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-800:]


def _said(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout
