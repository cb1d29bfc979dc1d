"""Facts of the operating system and the machine, read from /proc, /sys and /etc: os, memory, cpu, disk, uptime,
desktop, firmware. Texts are parsed by pure functions; nothing here needs a privilege.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shlex
import sys

from sparkops.programs import mounts
from sparkops.worker.calls import Unknown
from sparkops.worker.system import processes
from sparkops.worker.system.root import at

KIB = 1024


def text(root: str, path: str) -> str | None:
    """A small file's text without its last newline; None where it does not exist. Raises OSError otherwise."""
    try:
        with open(at(root, path), encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20).rstrip("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_assignments(content: str) -> dict[str, str]:
    """`KEY="value"` lines as in os-release(5); of a key that stands twice the last counts."""
    found = {}
    for line in content.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            with contextlib.suppress(ValueError):
                words = shlex.split(value)
                found[key] = words[0] if words else ""
    return found


def system(root: str) -> dict[str, object]:
    """Distribution, kernel, architecture, systemd, names. `machine` tells machines apart without their machine-id."""
    release = parse_assignments(text(root, "/etc/os-release") or text(root, "/usr/lib/os-release") or "")
    dgx = parse_assignments(text(root, "/etc/dgx-release") or "")
    machine = text(root, "/etc/machine-id")
    name, version = release.get("ID"), release.get("VERSION_ID")
    return {
        "id": name,
        "version": version,
        "release": f"{name} {version}" if name and version else name,
        "codename": release.get("VERSION_CODENAME"),
        "pretty": release.get("PRETTY_NAME"),
        "dgx_os": dgx.get("DGX_OTA_VERSION") or dgx.get("DGX_SWBUILD_VERSION"),
        "arch": platform.machine(),
        "kernel": (text(root, "/proc/sys/kernel/osrelease") or platform.release()),
        "hostname": text(root, "/proc/sys/kernel/hostname") or platform.node(),
        "machine": hashlib.sha256(machine.encode()).hexdigest()[:16] if machine else None,
        "timezone": _timezone(root),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "systemd": _systemd(),
    }


def _timezone(root: str) -> str | None:
    with contextlib.suppress(OSError):
        target = os.readlink(at(root, "/etc/localtime"))
        if "zoneinfo/" in target:
            return target.rpartition("zoneinfo/")[2]
    return text(root, "/etc/timezone")


def _systemd() -> int | None:
    try:
        _, said, _ = processes.ask(["systemctl", "--version"], timeout=10)
    except Unknown:
        return None
    return parse_systemd(said)


def parse_systemd(said: str) -> int | None:
    """255 out of `systemd 255 (255.4-1ubuntu8.12)`."""
    found = re.match(r"systemd (\d+)", said)
    return int(found.group(1)) if found else None


def memory(root: str) -> dict[str, object]:
    """Bytes out of /proc/meminfo: on GB10 the only truth, because nvidia-smi and NVML give no memory (facts b.2)."""
    content = text(root, "/proc/meminfo")
    if content is None:
        raise Unknown.of("meminfo-field-missing", field="MemTotal")
    return parse_meminfo(content)


def parse_counters(content: str) -> dict[str, int]:
    """All counters of /proc/meminfo that are amounts of memory, in bytes."""
    found = (re.match(r"(\w+):\s+(\d+) kB$", line) for line in content.splitlines())
    return {each.group(1): int(each.group(2)) * KIB for each in found if each}


def parse_meminfo(content: str) -> dict[str, object]:
    """The counters that matter, in bytes; None for those that the kernel does not have. See proc_meminfo(5)."""
    counters = parse_counters(content)
    if "MemTotal" not in counters:
        raise Unknown.of("meminfo-field-missing", field="MemTotal")
    return {
        "total_bytes": counters["MemTotal"],
        "available_bytes": counters.get("MemAvailable"),
        "cached_bytes": counters.get("Cached"),
        "swap_total_bytes": counters.get("SwapTotal"),
        "swap_free_bytes": counters.get("SwapFree"),
        "cma_total_bytes": counters.get("CmaTotal"),
    }


def cpu(root: str) -> dict[str, object]:
    """How many processors, and which: model names on x86, part numbers on Arm (0xd85 Cortex-X925, 0xd87 A725).

    `load` is the number of runnable tasks, averaged over 1, 5 and 15 minutes (proc_loadavg(5)).
    """
    load = [float(each) for each in (text(root, "/proc/loadavg") or "").split()[:3]]
    return {**parse_cpuinfo(text(root, "/proc/cpuinfo") or ""), "load": load or None}


def parse_cpuinfo(content: str) -> dict[str, object]:
    """`count` and the distinct `models` with how many there are of each."""
    pairs = [line.partition(":") for line in content.splitlines()]
    keys = [(key.strip(), value.strip()) for key, _, value in pairs]
    models: dict[str, int] = {}
    for key, value in keys:
        if key in ("model name", "CPU part"):
            models[value] = models.get(value, 0) + 1
    count = sum(1 for key, _ in keys if key == "processor")
    return {"count": count or os.cpu_count(), "models": models}


def disk(root: str, path: str) -> dict[str, object]:
    """Space, in bytes, where `path` is or would be created; `free_bytes` is what an ordinary user can still use."""
    here = at(root, path)
    while not os.path.exists(here) and len(here) > 1:
        here = os.path.dirname(here)
    space = os.statvfs(here)
    mounted = mounts.holding(text("/", "/proc/self/mountinfo") or "", os.path.realpath(here))
    return {
        "path": path,
        "exists": os.path.exists(at(root, path)),
        "free_bytes": space.f_bavail * space.f_frsize,
        "total_bytes": space.f_blocks * space.f_frsize,
        "free_inodes": space.f_favail,
        "read_only": bool(space.f_flag & os.ST_RDONLY),
        "filesystem": mounted.fstype if mounted else None,
        "mount": mounted.point if mounted else None,
    }


def uptime(root: str) -> dict[str, object]:
    """When the kernel booted and when PID 1 started, seconds since the epoch.

    The two differ in a container. A reboot is told by PID 1: a container's kernel and boot_id don't change with it.
    """
    stat, first = text(root, "/proc/stat") or "", text(root, "/proc/1/stat")
    found = re.search(r"^btime (\d+)$", stat, re.MULTILINE)
    booted = int(found.group(1)) if found else None
    started = None
    if booted is not None and first:
        ticks = int(first.rpartition(")")[2].split()[19])
        started = round(booted + ticks / os.sysconf("SC_CLK_TCK"), 2)
    return {"booted": booted, "pid1_started": started, "boot_id": text(root, "/proc/sys/kernel/random/boot_id")}


def desktop(root: str) -> dict[str, object]:
    """What systemd starts by default, and whether a display manager is enabled there."""
    target = None
    for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"):
        with contextlib.suppress(OSError):
            target = os.path.basename(os.readlink(at(root, f"{folder}/default.target")))
            break
    manager = None
    with contextlib.suppress(OSError):
        manager = os.path.basename(os.readlink(at(root, "/etc/systemd/system/display-manager.service")))
    return {"default_target": target, "graphical": target == "graphical.target", "display_manager": manager}


def firmware(root: str, devices: bool = False) -> dict[str, object]:
    """Machine and firmware as DMI has them; with `devices` also what fwupd knows, which takes about a second."""
    names = ("sys_vendor", "product_name", "product_version", "board_name", "bios_vendor", "bios_version", "bios_date")
    found: dict[str, object] = {}
    for name in names:
        with contextlib.suppress(PermissionError):
            found[name] = (text(root, f"/sys/class/dmi/id/{name}") or "").strip() or None
    if devices:
        found["devices"] = parse_fwupd(processes.output(["fwupdmgr", "get-devices", "--json"]))
    return found


def parse_fwupd(said: str) -> dict[str, str]:
    """Names and versions out of `fwupdmgr get-devices --json`."""
    try:
        devices = json.loads(said).get("Devices", [])
    except (ValueError, AttributeError):
        raise Unknown.of("program-output-invalid", program="fwupdmgr") from None
    return {each["Name"]: each["Version"] for each in devices if "Name" in each and "Version" in each}
