"""Errors that PCIe devices reported to the kernel since it started (Advanced Error Reporting).

Source: the kernel's Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats. Unlike its log, counters do not rotate.
"""

from sparkops.core.descriptors import names
from sparkops.worker.facts.system import text
from sparkops.worker.system.root import at

DEVICES = "/sys/bus/pci/devices"
SORTS = {"aer_dev_fatal": "fatal", "aer_dev_nonfatal": "non-fatal"}
"""Errors that the link itself corrected are usual, and not told."""


def pci(root: str) -> dict[str, object]:
    """`errors`: each device with fatal or non-fatal errors, and how many; `devices`: how many are counted at all."""
    errors, counted = [], 0
    for name in names(at(root, DEVICES)):
        totals = {sort: parse_total(text(root, f"{DEVICES}/{name}/{file}")) for file, sort in SORTS.items()}
        counted += any(total is not None for total in totals.values())
        told = [f"{total} {sort}" for sort, total in totals.items() if total]
        if told:
            errors.append(f"{name} ({_ids(root, name)}): {', '.join(told)}")
    return {"errors": errors, "devices": counted}


def parse_total(content: str | None) -> int | None:
    """3 out of the line `TOTAL_ERR_FATAL 3`; None where the device counts none."""
    for line in (content or "").splitlines():
        name, _, number = line.partition(" ")
        if name.startswith("TOTAL_ERR_") and number.strip().isdecimal():
            return int(number)
    return None


def _ids(root: str, name: str) -> str:
    ids = (text(root, f"{DEVICES}/{name}/{each}") or "?" for each in ("vendor", "device"))
    return ":".join(each.strip().removeprefix("0x") for each in ids)
