"""What one run of a program costs its controller: seconds, CPU seconds, and the peak of its processes' memory.

Whatever the program leaves behind (masters of multiplexed connections) is counted and ended: each run starts cold.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """Seconds of the wall and of the CPU, peak MiB (all processes' proportional set sizes), exit status, output."""

    seconds: float
    cpu: float
    memory: float
    status: int
    output: str


def run(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Cost:
    """One run in `folder`. Daemons of it become children of ours, so that they are counted and ended with it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    others = _descendants()
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        with _Sampling(others) as sampling:
            _, waited, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(waited)
        cpu = used.ru_utime + used.ru_stime + sum(map(_end, _descendants(others)))
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Cost(seconds, cpu, max(sampling.peak, used.ru_maxrss / 1024), process.returncode, text)


class _Sampling(threading.Thread):
    """Looks at the memory of the run's processes now and then, for at most a twentieth of one core's time."""

    def __init__(self, others: set[int]) -> None:
        super().__init__(daemon=True)
        self.others = others
        self.peak = 0.0
        self.over = threading.Event()

    def __enter__(self) -> _Sampling:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        pause = 0.1
        while not self.over.wait(pause):
            began = time.thread_time()
            self.peak = max(self.peak, sum(map(_memory, _descendants(self.others))))
            pause = max(0.1, 20 * (time.thread_time() - began))


def _descendants(apart: Collection[int] = ()) -> set[int]:
    """All processes under this one, without some that are `apart` and what is under those."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        below = [pid for pid in children.get(waiting.pop(), []) if pid not in apart]
        found.update(below)
        waiting.extend(below)
    return found


def _end(pid: int) -> float:
    """End what the run left behind; its CPU seconds."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGTERM)
        used = os.wait4(pid, 0)[2]
        return used.ru_utime + used.ru_stime
    return 0.0


def _memory(pid: int) -> float:
    """MiB of a process, what it shares counted in parts; 0 where it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
