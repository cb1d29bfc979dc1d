"""Facts of the GPU as GB10 gives them, and of the CDI specifications that hand it to containers.

On GB10 nvidia-smi prints `[N/A]` for all memory and names the chip "NVIDIA GB10" (NVIDIA's known issues; facts b.2).
A locked clock can't be read back, so there is no fact for it.
"""

import re
from collections.abc import Mapping

from sparkops.core.descriptors import names
from sparkops.worker.calls import Unknown
from sparkops.worker.facts.system import text
from sparkops.worker.system import processes
from sparkops.worker.system.root import at

FIELDS = {
    "name": "name",
    "driver_version": "driver_version",
    "compute_cap": "compute_capability",
    "uuid": "uuid",
    "pci.bus_id": "bus",
    "persistence_mode": "persistence",
    "clocks.sm": "sm_clock_mhz",
    "clocks.max.sm": "sm_clock_max_mhz",
    "power.draw": "power_watts",
    "temperature.gpu": "temperature_celsius",
    "utilization.gpu": "utilization_percent",
}
QUERY = f"--query-gpu={','.join(FIELDS)}"
NUMBERS = frozenset({"sm_clock_mhz", "sm_clock_max_mhz", "power_watts", "temperature_celsius", "utilization_percent"})
CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
PATIENCE = 8.0
"""Seconds for one call of nvidia-smi: with the groups that wait for it, all stays within one look's limit."""
BUSY_PERCENT = 90.0
STUCK_MHZ = 850.0
"""A little above the 799 MHz at which GPUs were seen stuck."""
MISMATCH = "Driver/library version mismatch"


def gpu(root: str) -> dict[str, object]:
    """All that is the same for each GPU of the node, of the first one; `count` says how many there are.

    Where no GPU answers, `present` is false and `error` says why. Raises Unknown when nvidia-smi hangs.
    """
    module = running_module(text(root, "/proc/driver/nvidia/version") or "")
    found, why = cards()
    if not found:
        missing = {"present": False, "count": 0, "driver_version": module, "module_version": module}
        return {**missing, "error": why}
    _, header, _ = processes.ask(["nvidia-smi"], timeout=PATIENCE)
    first = found[0]
    return {
        **first,
        "present": True,
        "count": len(found),
        "module_version": module or first["driver_version"],
        "cuda_version": parse_cuda(header),
        "stuck": stuck(first),
        "error": None,
    }


def stuck(card: Mapping[str, object]) -> str | None:
    """A GPU that is at work and does not leave its low clock, in words; None where it is idle, or that is not told.

    Seen: 799 MHz and 19.5 W against 2281 MHz and 92.5 W, until the power was taken away (minefield PR 55). Power alone
    says nothing: a stalled rank has 96 % and 21 W, too (facts of GLM-5.3 PR 115).
    """
    clock, used, power = card["sm_clock_mhz"], card["utilization_percent"], card["power_watts"]
    if not isinstance(clock, float) or not isinstance(used, float) or used < BUSY_PERCENT or clock > STUCK_MHZ:
        return None
    return f"{clock:g} MHz" + (f" and {power:g} W" if isinstance(power, float) else "") + f" at {used:g} % utilisation"


def cards() -> tuple[list[dict[str, object]], str]:
    """What nvidia-smi tells of each GPU now, or why it tells of none. Raises Unknown when it hangs."""
    said, why = query(QUERY, "--format=csv,noheader,nounits")
    return ([], why) if why else (parse_query(said), "nvidia-smi lists no GPU")


def query(*words: str) -> tuple[str, str]:
    """What nvidia-smi answers, or why it answers nothing. Raises Unknown when it hangs."""
    try:
        status, said, wrong = processes.ask(["nvidia-smi", *words], timeout=PATIENCE)
    except Unknown as error:
        if error.id != "program-missing":
            raise
        return "", "nvidia-smi is not installed"
    return (
        (said, "") if status == 0 else ("", " ".join((said + " " + wrong).split()) or f"nvidia-smi ended with {status}")
    )


def parse_query(said: str) -> list[dict[str, object]]:
    """The cards of a csv answer without header and units; `[N/A]` and its like are None."""
    found = []
    for line in said.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(FIELDS):
            found.append({key: _value(key, value) for key, value in zip(FIELDS.values(), values, strict=True)})
    return found


def _value(key: str, value: str) -> object:
    if value.strip("[]").lower() in ("n/a", "not supported", "unknown error", "gpu requires reset", ""):
        return None
    if key == "persistence":
        return value == "Enabled"
    if key in NUMBERS:
        try:
            return float(value)
        except ValueError:
            return None
    return value


def parse_cuda(header: str) -> str | None:
    """13.0 out of the header of plain `nvidia-smi`, or out of the lines of `nvidia-smi --version`."""
    found = re.search(r"CUDA Version\s*:\s*(\d+\.\d+)", header)
    return found.group(1) if found else None


def running_module(version: str) -> str | None:
    """The loaded kernel module's version out of /proc/driver/nvidia/version, open flavour or not."""
    found = re.search(r"^NVRM version:.*?Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", version, re.MULTILINE)
    return found.group(1) if found else None


def cdi(root: str, driver: str | None) -> dict[str, object]:
    """The CDI specifications of NVIDIA devices and whether they name the libraries of the running `driver`.

    `state` is none, fresh, stale, or unproven where a specification names no driver version (or no driver runs);
    `stale` says for each specification that is, what it names.
    """
    specs = {}
    for folder in CDI_FOLDERS:
        for name in names(at(root, folder)):
            path = f"{folder}/{name}"
            content = text(root, path) if name.endswith((".yaml", ".yml", ".json")) else None
            if content is not None and "nvidia.com/" in content:
                specs[path] = driver_versions(content)
    return {
        "specs": specs,
        "state": _freshness(specs, driver),
        "stale": [
            f"{path} names {', '.join(versions)} while {driver} runs"
            for path, versions in specs.items()
            if driver and versions and versions != [driver]
        ],
        "driver_version": driver,
        "toolkit": _toolkit(),
    }


def driver_versions(content: str) -> list[str]:
    """The driver versions in the library names that a specification mounts, YAML or JSON alike."""
    return sorted(set(re.findall(r"lib(?:cuda|nvidia-ml|nvidia-ptxjitcompiler)\.so\.(\d{3,}(?:\.\d+)+)", content)))


def _freshness(specs: dict[str, list[str]], driver: str | None) -> str:
    if not specs:
        return "none"
    named = {version for versions in specs.values() for version in versions}
    if driver is None or not named:
        return "unproven"
    return "fresh" if named == {driver} else "stale"


def _toolkit() -> str | None:
    try:
        _, said, _ = processes.ask(["nvidia-ctk", "--version"], timeout=5)
    except Unknown:
        return None
    return parse_toolkit(said)


def parse_toolkit(said: str) -> str | None:
    """1.19.0 out of `NVIDIA Container Toolkit CLI version 1.19.0`."""
    found = re.search(r"version (\d+(?:\.\d+)+\S*)", said)
    return found.group(1) if found else None
