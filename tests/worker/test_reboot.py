"""Whether a reboot is due, and that a machine is not rebooted twice for one reason; on a folder as the node's root."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparkops.worker.calls import Refused
from sparkops.worker.kinds import reboot
from sparkops.worker.requests import facts
from sparkops.worker.system import processes
from tests.worker.nodes import call

KERNEL = "kernel 6.17.0-1008-nvidia runs, 6.17.0-1014-nvidia is installed"
ASKED = "linux-base asked for it"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose `boot` file says which run of the machine it is."""
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("one\n")
    booted(tmp_path, 1)
    monkeypatch.setattr(reboot, "DOWN_SECONDS", 0.0)
    return tmp_path


def booted(root: Path, number: int) -> None:
    (root / "proc/1/stat").write_text(f"1 (a) b) S {' '.join('0' for _ in range(18))} {number} 0")


def asked(root: Path, monkeypatch: pytest.MonkeyPatch, *reasons: str) -> list[list[str]]:
    """What the machine was told by a reboot for these reasons. Raises Refused where it is not told."""
    told: list[list[str]] = []
    monkeypatch.setattr(facts.Node, "group", lambda self, name: {"due": bool(reasons), "reasons": list(reasons)})

    def tell(argv: list[str]) -> tuple[int, str, str]:
        told.append(argv)
        return 0, "", ""

    monkeypatch.setattr(processes, "ask", tell)
    found = reboot.observe({}, root=str(root))
    with pytest.raises(Refused) as caught:
        reboot.converge(call(), {"state_dir": "/state"}, found, {"due": False}, {}, root=str(root))
    if caught.value.id != "reboot-not-begun":
        raise caught.value
    return told


def test_a_machine_is_rebooted_once_for_a_reason(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(machine, monkeypatch, KERNEL) == [["systemctl", "--no-block", "reboot"]]
    assert asked(machine, monkeypatch, KERNEL), "it did not go down yet: the same boot"
    booted(machine, 2)
    with pytest.raises(Refused) as caught:
        asked(machine, monkeypatch, KERNEL)
    assert (caught.value.id, caught.value.type) == ("reboot-did-not-help", "unknown")
    assert asked(machine, monkeypatch, KERNEL.replace("1014", "1015")), "another reason"


def test_what_an_upgrade_asks_for_anew_is_a_new_reason(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(machine, monkeypatch, ASKED)
    booted(machine, 2)
    assert asked(machine, monkeypatch, ASKED)


UPGRADE = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("at work", flush=True)
    sys.stdin.read()
"""


def test_a_machine_is_not_rebooted_amid_an_upgrade(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new kernel stands in /boot before the package manager has ended, and made the reboot due."""
    lock = machine / "var/lib/dpkg/lock-frontend"
    lock.parent.mkdir(parents=True)
    monkeypatch.setattr(reboot, "PACKAGE_SECONDS", 0.0)
    argv = [sys.executable, "-c", UPGRADE, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as upgrade:
        assert upgrade.stdout is not None and upgrade.stdout.readline()
        with pytest.raises(Refused) as caught:
            asked(machine, monkeypatch, KERNEL)
        assert (caught.value.id, caught.value.type) == ("reboot-amid-packages", "unknown")
        upgrade.communicate()
    assert asked(machine, monkeypatch, KERNEL)


def test_nothing_is_due_nothing_is_done(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts.Node, "group", lambda self, name: {"due": False, "reasons": []})
    found = reboot.observe({}, root=str(machine))
    assert found == {"due": False, "reasons": [], "boot": "one 1"}
    reboot.converge(call(), {"state_dir": "/s"}, found, {"due": False}, {}, root=str(machine))
    assert not (machine / "s").exists()


def test_this_machine_tells_its_boot() -> None:
    assert reboot.boot() == reboot.boot()
    started = subprocess.run(["cat", "/proc/1/stat"], capture_output=True, text=True, check=True).stdout
    assert reboot.boot().split()[1] == started.rpartition(")")[2].split()[19]
