"""What is kept of an engine that hangs, before it is killed: its processes, their Python stacks, its last lines."""

import collections
import contextlib
import os
import resource
import signal
import time
from collections.abc import Sequence

from sparkops.programs.launch.listening import PROC, container_of, content_of, pids

THREADS = 32
"""Of one process; an engine has hundreds that wait."""
STATUS = ("Name:", "State:", "PPid:", "VmRSS:", "Threads:", "SigBlk:", "SigCgt:")


def processes_of(container: str, proc: str = PROC) -> "list[int]":
    """All processes in a container's control group."""
    return [pid for pid in pids(proc) if container_of(pid, proc) == container]


class Progress:
    """For how long nothing has moved in a container: no process came or went, nothing was read or written on a disk.

    Weights that are read and kernels that are compiled move something; a rank that waits for another one in NCCL keeps
    processor and GPU busy and moves nothing. Less than GRAIN is what a log or a statistic writes.
    """

    GRAIN = 1 << 20

    def __init__(self, proc: str = PROC) -> None:
        self.proc = proc
        self.processes: list[int] = []
        self.bytes = 0
        self.moved = time.monotonic()

    def look(self, container: str) -> "tuple[float | None, str]":
        """Seconds since something moved, None where it can't be seen, and the processes by state, as `S3 R1`."""
        processes = processes_of(container, self.proc)
        count, states = 0, collections.Counter[str]()
        for pid in processes:
            lines = content_of(os.path.join(self.proc, str(pid), "io")).splitlines()
            count += sum(int(line.split()[1]) for line in lines if line.startswith(("read_bytes:", "write_bytes:")))
            states[content_of(os.path.join(self.proc, str(pid), "stat")).rpartition(")")[2].strip()[:1]] += 1
        if processes != self.processes or abs(count - self.bytes) >= self.GRAIN:
            self.processes, self.bytes, self.moved = processes, count, time.monotonic()
        told = " ".join(f"{state}{number}" for state, number in sorted(states.items()) if state)
        return (time.monotonic() - self.moved if processes else None), told


def describe(pid: int, proc: str = PROC) -> str:
    """What the kernel says of a process: its state, and for each thread where it waits. Source: proc(5)."""
    folder = os.path.join(proc, str(pid))
    words = content_of(os.path.join(folder, "cmdline")).replace("\0", " ").strip()[:300]
    status = [line for line in content_of(os.path.join(folder, "status")).splitlines() if line.startswith(STATUS)]
    lines = [f"process {pid}: {words}", *(f"  {' '.join(line.split())}" for line in status)]
    threads: list[str] = []
    with contextlib.suppress(OSError):
        threads = sorted(os.listdir(os.path.join(folder, "task")), key=int)
    for thread in threads[:THREADS]:
        task = os.path.join(folder, "task", thread)
        told = [content_of(os.path.join(task, name)).strip() for name in ("comm", "wchan", "syscall")]
        lines.append(f"  thread {thread} ({told[0]}) waits in {told[1] or '?'}; system call {told[2] or '?'}")
        lines += [f"    {line}" for line in content_of(os.path.join(task, "stack")).splitlines()]
    if len(threads) > THREADS:
        lines.append(f"  and {len(threads) - THREADS} more threads")
    return "\n".join(lines)


def dump_python_stacks(processes: Sequence[int], proc: str = PROC) -> None:
    """End these processes by SIGABRT, on which Python's faulthandler writes the stacks of all threads to the log.

    The container's environment switches it on (PYTHONFAULTHANDLER). A stopped process is continued, or it would not
    see the signal. No memory is dumped: that of an engine is as large as its model.
    """
    for pid in processes:
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(proc, str(pid), "coredump_filter"), "w", encoding="ascii") as file:
                file.write("0")
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
            os.kill(pid, signal.SIGABRT)
            os.kill(pid, signal.SIGCONT)


def report(service: str, why: str, described: Sequence[str], lines: Sequence[str]) -> str:
    """The text that is kept. `lines` are the engine's last ones, with the stacks that it wrote itself."""
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    parts = [f"{service} hung at {when}: {why}", "# processes, as the kernel shows them", *described]
    return "\n".join(
        [*parts, "# the engine's last lines, with its Python stacks where it could write them", *lines, ""]
    )
