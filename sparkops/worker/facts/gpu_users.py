"""Who computes on the GPU, by nvidia-smi and the kernel; and memory that nobody accounts for while nobody does.

Per-process memory is told on the host only, never inside a container (sparkDash PR 10), so only who it is counts here.
"""

import os

from sparkops.programs import docker
from sparkops.programs.launch import listening
from sparkops.worker.facts import gpu
from sparkops.worker.facts.system import parse_counters, text
from sparkops.worker.system import ports

QUERY = ("--query-compute-apps=pid,process_name", "--format=csv,noheader")
ACCOUNTED = (
    *("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab", "KernelStack", "PageTables", "SecPageTables"),
    *("Percpu", "Hugetlb", "Bounce", "Zswap"),
)
"""Counters of proc_meminfo(5) that do not overlap; what a driver takes for itself stands in none of them."""


def gpu_users(root: str) -> dict[str, object]:
    """`foreign`: the processes that compute on the GPU and belong to no service of sparkops, in words; `count` of all.

    `unaccounted_bytes`: memory that is neither free nor in a counter of the kernel's, None while anybody computes, or
    did just now: a driver that did not give the memory of an engine back (eugr/spark-vllm-docker #257). Raises Unknown.
    """
    found, why = computing()
    if why:
        return {"present": False, "error": why}
    users = {pid: ports.described(listening.owner(pid)) for pid in found}
    foreign = {pid: ports.words(each) for pid, each in users.items() if not _ours(each)}
    counters = parse_counters(text(root, "/proc/meminfo") or "")
    here = [pid for pid in users if os.path.exists(f"{listening.PROC}/{pid}")]  # what has ended belongs to nobody now
    return {
        "present": True,
        "error": None,
        "count": len(here),
        "foreign": sorted(foreign[pid] for pid in here if pid in foreign),
        "unaccounted_bytes": unaccounted(counters) if not found else None,
    }


def _ours(user: dict[str, object]) -> bool:
    """Whether it belongs to a service, or to another container that sparkops has labelled."""
    if user["service"] or not user["container"]:
        return bool(user["service"])
    found = docker.inspect_container(str(user["container"])) or {}
    return any(str(label).startswith("sparkops.") for label in (found.get("Config") or {}).get("Labels") or {})


def computing() -> tuple[dict[int, str], str]:
    """The programs that compute on the GPU by their process ids; or why nvidia-smi tells of none. Raises Unknown when
    it hangs."""
    said, why = gpu.query(*QUERY)
    return parse_processes(said), why


def parse_processes(said: str) -> dict[int, str]:
    """Programs by process id, the lowest first, out of csv lines without a header."""
    rows = (line.partition(",")[::2] for line in said.splitlines())
    return dict(sorted((int(pid.strip()), name.strip()) for pid, name in rows if pid.strip().isdecimal()))


def unaccounted(counters: dict[str, int]) -> int | None:
    """Bytes of MemTotal that stand in no other counter; None where the kernel tells too little."""
    if not {"MemTotal", "MemFree", "Cached", "AnonPages", "Slab"} <= counters.keys():
        return None
    return max(0, counters["MemTotal"] - sum(counters.get(name, 0) for name in ACCOUNTED))
