"""What the main process of a unit says of itself, once it has become its own program. It must not know systemd."""

import os
import time

from sparkops.worker.calls import Unknown
from sparkops.worker.system.root import at

VARIABLE = b"SPARKOPS_INPUTS="
STARTING = frozenset({"systemd", "systemd-executor"})
"""Names of programs that a forked process still is before it becomes the unit's own."""
LOOKS, POLL = 40, 0.05


def inputs(pid: int, root: str) -> str:
    """The digest that it was started from, out of its environment; "" where that has none.

    Before and amid its start the environment is systemd's, or empty. The program is asked for first: an environment
    read before it may still be that of another. Raises Unknown where it has ended.
    """
    for _ in range(LOOKS):
        try:
            program = os.path.basename(os.readlink(at(root, f"/proc/{pid}/exe")))
            with open(at(root, f"/proc/{pid}/environ"), "rb") as file:
                entries = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            raise Unknown.of("unit-process-ended") from None
        for entry in entries:
            if entry.startswith(VARIABLE):
                return entry[len(VARIABLE) :].decode(errors="replace")
        if program not in STARTING and any(entries):
            return ""
        time.sleep(POLL)
    return ""


def words(pid: int, root: str) -> list[str] | None:
    """Its argument list; None where that is still systemd's own. Raises Unknown where it has ended."""
    for _ in range(LOOKS):
        try:
            with open(at(root, f"/proc/{pid}/comm"), encoding="utf-8") as file:
                name = file.read().strip()
            with open(at(root, f"/proc/{pid}/cmdline"), "rb") as file:
                found = file.read().decode(errors="replace").rstrip("\0").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            raise Unknown.of("unit-process-ended") from None
        if name not in STARTING and not name.startswith("(") and found != [""]:
            return found
        time.sleep(POLL)
    return None
