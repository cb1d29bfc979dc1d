"""Facts of the packages that the GPU stands on, and whether a reboot is due. Nothing is installed or restarted."""

import fnmatch
import os
import re
from collections.abc import Iterable

from sparkops.core.descriptors import names
from sparkops.worker.calls import Unknown
from sparkops.worker.facts.gpu import MISMATCH
from sparkops.worker.facts.system import text
from sparkops.worker.system import processes
from sparkops.worker.system.root import at

PLATFORM = (
    "linux-nvidia*",
    "linux-image-*nvidia*",
    "linux-headers-*nvidia*",
    "linux-modules-*nvidia*",
    "nvidia-driver-*",
    "nvidia-dkms-*",
    "nvidia-kernel-*",
    "nvidia-firmware-*",
    "nvidia-utils-*",
    "nvidia-container-toolkit*",
    "libnvidia-*",
    "docker-ce",
    "docker.io",
    "containerd*",
)
"""The names on DGX OS 7, from public listings of such machines (unverified beyond them)."""

FORMAT = "${Package}\\t${Version}\\t${db:Status-Want}\\t${db:Status-Status}\\n"
KERNEL = "vmlinuz-"
ASKED = "asked for it"


def packages(root: str, patterns: Iterable[str] = PLATFORM) -> dict[str, object]:
    """The installed packages of these globs with their versions, and which of them are held."""
    argv = ["dpkg-query", f"--admindir={at(root, '/var/lib/dpkg')}", "-W", "-f", FORMAT]
    return parse_packages(processes.output(argv, timeout=10), tuple(patterns))


def parse_packages(said: str, patterns: tuple[str, ...]) -> dict[str, object]:
    """`installed` maps names to versions; `held` and `unheld` share them out. Raises Unknown for another answer."""
    installed, held = {}, []
    for line in said.splitlines():
        fields = line.split("\t")
        if len(fields) != 4:
            raise Unknown.of("program-output-invalid", program="dpkg-query")
        if fields[3] == "installed" and any(fnmatch.fnmatchcase(fields[0], pattern) for pattern in patterns):
            installed[fields[0]] = fields[1]
            if fields[2] == "hold":
                held.append(fields[0])
    return {"installed": installed, "held": sorted(held), "unheld": sorted(installed.keys() - set(held))}


def reboot(root: str, gpu: dict[str, object], installed: dict[str, str]) -> dict[str, object]:
    """Whether a reboot is due, and each reason in words."""
    reasons = []
    if os.path.exists(at(root, "/run/reboot-required")):
        wanting = sorted(set((text(root, "/run/reboot-required.pkgs") or "").split()))
        reasons.append(f"{', '.join(wanting) or 'an upgrade'} {ASKED}")
    running = text(root, "/proc/sys/kernel/osrelease") or os.uname().release
    boot = names(at(root, "/boot"))
    newest = newest_kernel((name[len(KERNEL) :] for name in boot if name.startswith(KERNEL)), running)
    if newest is not None and newest != running:
        reasons.append(f"kernel {running} runs, {newest} is installed")
    reasons += driver_reasons(gpu, installed)
    return {"due": bool(reasons), "reasons": reasons, "kernel": running, "newest_kernel": newest}


def newest_kernel(installed: Iterable[str], running: str) -> str | None:
    """The newest installed kernel of the running one's flavour; None where the running one is not installed here.

    A node in a container runs the machine's kernel and has none of its own; that says nothing about a reboot.
    """
    known = set(installed)
    if running not in known:
        return None
    same = [name for name in known if flavour(name) == flavour(running)]
    return max(same, key=version_key)


def flavour(kernel: str) -> str:
    """`nvidia` of 6.17.0-1014-nvidia, `generic` of 6.8.0-49-generic; `nvidia-64k` is another flavour than `nvidia`."""
    return re.sub(r"^[\d.]+(?:-\d+)*-?", "", kernel)


def version_key(version: str) -> tuple[int, ...]:
    """The numbers of a version in order, so that 1014 is newer than 1008 and 580.142 newer than 580.95.05."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def driver_reasons(gpu: dict[str, object], installed: dict[str, str]) -> list[str]:
    """Why the loaded driver module is not the installed one."""
    if MISMATCH in str(gpu.get("error") or ""):
        return ["the driver's libraries are not those of the loaded kernel module (nvidia-smi: version mismatch)"]
    running = gpu.get("module_version")
    upstream = {
        re.sub(r"^\d+:|-.*$", "", version)
        for name, version in installed.items()
        if re.fullmatch(r"(nvidia-driver|libnvidia-compute)(-\d+)?(-server)?(-open)?", name)
    }
    others = sorted(upstream - {running})
    if running and others and running not in upstream:
        return [f"driver {running} runs, {others[-1]} is installed"]
    return []
