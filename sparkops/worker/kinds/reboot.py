"""The node half of `reboot`: whether one is due, and the reboot itself, once for the same reasons."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from sparkops.core import atomic
from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import Nothing, StateAsk
from sparkops.core.messages import Fields, State
from sparkops.worker.calls import Call, Refused
from sparkops.worker.facts.packages import ASKED
from sparkops.worker.requests import facts
from sparkops.worker.system import processes, safe_path
from sparkops.worker.system.root import at

STAMP = "reboot.json"
DPKG = "/var/lib/dpkg/lock-frontend"
"""The lock that apt and dpkg hold while they work, by fcntl(2)."""
PACKAGE_SECONDS = 300.0
"""Seconds that a package manager is waited for."""
POLL = 1.0
DOWN_SECONDS = 300.0
"""For the machine to end this very process."""


def observe(ask: StateAsk, *, root: str = "/") -> dict[str, object]:
    """`due` and its `reasons` in words; `boot` names the present run of the machine."""
    found = facts.Node(root).group("reboot")
    return {"due": found["due"], "reasons": found["reasons"], "boot": boot(root)}


def boot(root: str = "/") -> str:
    """The kernel's boot_id and the start of PID 1: a container has the first of its machine, and restarts alone."""
    with open(at(root, "/proc/sys/kernel/random/boot_id"), encoding="ascii") as file:
        kernel = file.read().strip()
    with open(at(root, "/proc/1/stat"), encoding="utf-8", errors="replace") as file:
        started = file.read().rpartition(")")[2].split()[19]
    return f"{kernel} {started}"


def converge(call: Call, ask: StateAsk, found: State, want: State, act: Nothing, *, root: str = "/") -> None:
    """Reboot, which ends this process. Raises Refused where the last one for these reasons did not help."""
    if not found or not found["due"]:
        return
    folder = at(root, ask["state_dir"])
    refuse_again(os.path.join(folder, STAMP), found)
    with _packages_at_rest(call, root):
        safe_path.note(folder, STAMP, {"reasons": lasting(found), "boot": found["boot"]})
        _, _, wrong = processes.ask(["systemctl", "--no-block", "reboot"])  # refused while it goes down already
        call.progress(wrong.strip() or "the machine goes down")
        call.stopping.wait(DOWN_SECONDS)
    raise Refused.of("reboot-not-begun", type="unknown", seconds=DOWN_SECONDS)


@contextlib.contextmanager
def _packages_at_rest(call: Call, root: str) -> Iterator[None]:
    """With the package manager's lock: its new kernel is seen before its upgrade has ended. Raises Refused."""
    try:
        handle = os.open(at(root, DPKG), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # a node without dpkg
        return
    with closing(handle):
        started = time.monotonic()
        while not _locked(handle):
            if time.monotonic() - started > PACKAGE_SECONDS:
                raise Refused.of("reboot-amid-packages", type="unknown", seconds=PACKAGE_SECONDS)
            call.progress("waiting for the package manager, which is at work")
            if call.stopping.wait(POLL):
                raise Refused.of("cancelled", type="cancelled")
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # fcntl(2) names both
        return False
    return True


def lasting(found: Fields) -> list[str]:
    """The reasons that a reboot has to end; what an upgrade asks for is forgotten by the reboot itself."""
    return [each for each in found["reasons"] if not each.endswith(ASKED)]


def refuse_again(path: str, found: Fields) -> None:
    """Raises Refused where the machine was rebooted for the same reasons before this boot."""
    last: dict[str, object] = {}
    with contextlib.suppress(OSError):
        last = atomic.mapping(path)
    reasons = lasting(found)
    if reasons and last.get("reasons") == reasons and last.get("boot") != found["boot"]:
        raise Refused.of("reboot-did-not-help", type="unknown", reasons=reasons)
