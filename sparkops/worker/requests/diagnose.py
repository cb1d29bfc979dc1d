"""What a bug report needs from this node, collected side by side: each part with a limit of time and of bytes.

It only looks. Secrets that the node knows (environment files of services) and whatever looks like one are taken out
here, before a part is cut to its size and before it travels.
"""

import contextlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from sparkops.core import atomic
from sparkops.core.messages import DiagnosePart, DiagnoseRequest, DiagnoseService, reason, reason_of
from sparkops.programs import docker
from sparkops.programs.redaction import Redaction
from sparkops.worker.calls import Call, Unknown
from sparkops.worker.record import claim_records
from sparkops.worker.requests import facts
from sparkops.worker.system import jobs, processes
from sparkops.worker.system.root import SPECS
from sparkops.worker.system.side_by_side import side_by_side

PART = 512 << 10
"""Bytes of a part; what is longer is cut at the beginning, for the end tells more."""
TOTAL = 32 << 20
"""Bytes of all parts, which travel in one frame."""
READ = 4 << 20
"""Bytes that are read of a source at most, before the redaction."""
SECONDS = 20.0
WHOLE = 120.0
"""Seconds after which the parts that are not there yet are given up."""
THREADS = 6
JOBS = 20
"""Jobs whose logs are taken."""
KERNEL = re.compile(r"NVRM|Xid|AER:|[Oo]ut of memory|oom-kill|Killed process|I/O error|thermal|MCE|Call Trace", re.I)
PROGRAMS: dict[str, list[str]] = {
    "gpu/nvidia-smi.txt": ["nvidia-smi"],
    "gpu/nvidia-smi-q.txt": ["nvidia-smi", "-q"],
    "system/uname.txt": ["uname", "-a"],
    "system/disk.txt": ["df", "-hT"],
    "system/block-devices.txt": ["lsblk"],
    "system/processes.txt": ["ps", "-eo", "pid,ppid,user,stat,etimes,rss,pcpu,comm", "--sort=-rss"],
    "system/failed-units.txt": ["systemctl", "--no-pager", "--failed"],
    "system/clock.txt": ["timedatectl", "--no-pager"],
    "system/packages.txt": [
        *("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\\n"),
        *("nvidia-*", "libnvidia-*", "cuda-*", "docker*", "containerd*", "linux-image-*", "systemd", "python3"),
    ],
    "network/addresses.txt": ["ip", "-s", "address"],
    "network/routes.txt": ["ip", "route"],
    "network/listening.txt": ["ss", "-tlnp"],
}
FILES = {
    "system/os-release.txt": "/etc/os-release",
    "system/kernel-arguments.txt": "/proc/cmdline",
    "system/uptime.txt": "/proc/uptime",
    "memory/meminfo.txt": "/proc/meminfo",
    "memory/pressure.txt": "/proc/pressure/memory",
    "memory/swaps.txt": "/proc/swaps",
    "network/resolv.conf": "/etc/resolv.conf",
    "docker/daemon.json": "/etc/docker/daemon.json",
}

Look = Callable[[], object]


def collect(call: Call, args: DiagnoseRequest) -> list[DiagnosePart]:
    """All parts, in the order of their names. What could not be had is a part with the reason in `why`."""
    services = [*args["services"], *_claimed(args)]
    return gather(call, dict(_looks(args["state_dir"], services)), Redaction(_secrets()))


def gather(call: Call, looks: dict[str, Look], redaction: Redaction) -> list[DiagnosePart]:
    """The parts of these looks, THREADS of them at a time; each redacted, and all within the limits."""
    late = reason("diagnose-late", seconds=WHOLE)
    done: dict[str, DiagnosePart] = {name: {"name": name, "text": b"", "why": late, "cut": False} for name in looks}
    parts = [partial(_part, name, look, redaction) for name, look in looks.items()]
    for number, part in enumerate(side_by_side(parts, THREADS, WHOLE, call.stopping), 1):
        done[part["name"]] = part
        call.progress("collecting", done=number, total=len(looks), unit="parts")
    size = PART if sum(len(each["text"]) for each in done.values()) <= TOTAL else TOTAL // len(done)
    return [_cut(done[name], size) for name in sorted(done)]


def _part(name: str, look: Look, redaction: Redaction) -> DiagnosePart:
    try:
        found = look()
    except Exception as error:  # noqa: BLE001 - a defect in one part must not cost the others
        return {"name": name, "text": b"", "why": redaction.json(reason_of(error)), "cut": False}
    if found is None:
        return {"name": name, "text": b"", "why": reason("diagnose-absent"), "cut": False}
    if isinstance(found, str):
        text = redaction.text(found)
    else:
        text = json.dumps(redaction.json(found), indent=1, sort_keys=True, default=str)
    return _cut({"name": name, "text": text.encode("utf-8", "replace"), "why": None, "cut": False}, PART)


def _cut(part: DiagnosePart, size: int) -> DiagnosePart:
    """The last whole lines that fit into so many bytes."""
    if len(part["text"]) <= size:
        return part
    return {**part, "text": part["text"][-size:].partition(b"\n")[2], "cut": True}


def _secrets() -> Iterator[str]:
    """The values in the environment files of services: a JSON mapping each."""
    with contextlib.suppress(OSError):
        for name in os.listdir(SPECS):
            if name.endswith(".env"):
                with contextlib.suppress(OSError):
                    yield from map(str, atomic.mapping(os.path.join(SPECS, name)).values())


def _claimed(args: DiagnoseRequest) -> Iterator[DiagnoseService]:
    """Services that this cluster put here and that the controller does not name: by the claims of their units."""
    if not args["claimed"]:
        return
    known = {each["unit"] for each in args["services"]}
    with contextlib.suppress(Unknown, OSError):
        record, _ = claim_records.own(args["state_dir"], args["cluster"], args["former"])
        for key, entry in record.items():
            kind, _, unit = key.partition(" ")
            service = str(entry.get("service") or "")
            if kind == "unit" and entry.get("content") and unit not in known:
                name = service or unit.rpartition(".")[0]
                yield {"name": name, "unit": unit, "container": f"sparkops-{name}"}


def _looks(state_dir: str, services: list[DiagnoseService]) -> Iterator[tuple[str, Look]]:
    yield from ((name, lambda argv=argv: _said(argv)) for name, argv in PROGRAMS.items())
    yield from ((name, lambda path=path: _read(path)) for name, path in FILES.items())
    yield "system/python.txt", lambda: f"{platform.python_version()} {platform.machine()}\n"
    yield "facts.json", lambda: facts.observe({})
    for boot in (0, -1):
        word = "this-boot" if not boot else "last-boot"
        journal = ["journalctl", "--no-pager", "-k", f"--boot={boot}", "--output=short-iso"]
        yield f"kernel/{word}.txt", lambda argv=journal: _said([*argv, "--lines=800"])  # type: ignore[misc]
        yield f"kernel/{word}-faults.txt", lambda argv=journal: _faults(argv)  # type: ignore[misc]
    yield "docker/version.json", docker.versions
    yield "docker/info.json", lambda: docker.ask("/info")
    yield "docker/containers.json", lambda: docker.containers()
    yield "docker/images.json", lambda: docker.ask("/images/json")
    yield "docker/journal.txt", lambda: _journal("docker.service", 0, 300)
    yield "sparkops/claims.json", lambda: claim_records.records(state_dir)
    yield "sparkops/history.jsonl", lambda: _read(os.path.join(state_dir, "history.jsonl"))
    yield "sparkops/jobs.json", jobs.running
    yield "sparkops/files.txt", lambda: _said(["ls", "-laR", "/etc/sparkops", "/usr/local/lib/sparkops"])
    for name, path in _job_logs():
        yield f"sparkops/jobs/{name}.txt", lambda path=path: _read(path)  # type: ignore[misc]
    for service in services:
        yield from _of_service(service)


def _of_service(service: DiagnoseService) -> Iterator[tuple[str, Look]]:
    name, unit, container = service["name"], service["unit"], service["container"]
    here = f"services/{name}"
    yield f"{here}/unit.txt", lambda: _said(["systemctl", "--no-pager", "cat", "--", unit])
    yield f"{here}/unit-properties.txt", lambda: _said(["systemctl", "--no-pager", "show", "--", unit])
    yield f"{here}/spec.json", lambda: _json(os.path.join(SPECS, f"{name}.json"))
    yield f"{here}/journal-this-boot.txt", lambda: _journal(unit, 0, 4000)
    yield f"{here}/journal-last-boot.txt", lambda: _journal(unit, -1, 2000)
    yield f"{here}/container.json", lambda: docker.inspect_container(container)
    yield f"{here}/container-log.txt", lambda: docker.logs(container, 1000, timestamps=True)


def _journal(unit: str, boot: int, lines: int) -> str:
    argv = ["journalctl", "--no-pager", f"--unit={unit}", f"--boot={boot}", f"--lines={lines}", "--output=short-iso"]
    return _said(argv)


def _faults(argv: list[str]) -> str:
    return "".join(line for line in _said(argv).splitlines(keepends=True) if KERNEL.search(line)) or "(none)\n"


def _said(argv: list[str]) -> str:
    """What a program says, its complaints behind it. Raises Refused where it is missing or hangs."""
    with processes.ended(argv, SECONDS, together=True) as (status, output, _):
        text = _end_of(output)
    if status and not text.strip():
        raise processes.failed(argv, status, "")
    return text


def _read(path: str) -> str:
    """The end of a file, where it is a regular one or a kernel's. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        return _end_of(file)


def _end_of(file: IO[bytes]) -> str:
    """At most READ bytes, beginning with a whole line."""
    size = os.fstat(file.fileno()).st_size  # 0 for the kernel's files, which are read from their beginning
    file.seek(max(0, size - READ))
    data: bytes = file.read(READ)
    if size > READ:
        data = data.partition(b"\n")[2]
    return data.decode(errors="replace")


def _json(path: str) -> object:
    text = _read(path)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _job_logs() -> Iterator[tuple[str, str]]:
    """The logs of the newest jobs that said something."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(jobs.RUN):
            path = os.path.join(jobs.RUN, name, "log")
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found += [(status.st_mtime, name, path)] if status.st_size else []
    yield from ((name, path) for _, name, path in sorted(found)[-JOBS:])


CALLS = {"collect": collect}
