"""Every sort of drift, provoked by hand on a real node: found with its id and severity, repaired or with a remedy.

All of a batch are provoked at once, so that a look and an apply stand for all; a sort that needs another one away is in
another batch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell, shell_in
from tests.e2e.test_service import UNIT, Service
from tests.lab.lab import Lab
from tests.lab.node import Node

ROOT = Path(__file__).parents[2]
ROLES = ("image", "service", "health", "driver", "own")
OWN = """\
summary: what the table edits by hand
scope: node
resources:
  - file: /etc/lab-edited
    content: declared
  - file: /etc/lab-removed
    content: declared
  - file: /etc/lab-mode
    content: declared
    mode: "0644"
  - link: /etc/lab-link
    target: /etc/lab-edited
  - sysctl: net.ipv4.ip_default_ttl
    value: "63"
  - package: procps
    hold: true
  - unit: lab-masked.service
    content: &text |
      [Service]
      ExecStart=/bin/sleep 100000
      [Install]
      WantedBy=multi-user.target
    enabled: true
    running: true
  - unit: lab-stopped.service
    content: *text
    running: true
  - unit: lab-disabled.service
    content: *text
    enabled: true
  - unit: lab-drop-in.service
    content: *text
    running: true
"""


@dataclass(frozen=True, kw_only=True)
class Sort:
    """One sort of drift: how it is provoked, and what is found of it. `key`: what of the resource differs.

    Without a `remedy` an apply repairs it.
    """

    provoke: Callable[[Table], object]
    id: str = "drift-differs"
    about: str = ""
    key: str = ""
    severity: str = "warning"
    remedy: str = ""


@dataclass
class Table:
    """The node with all that is declared, and how it is changed by hand."""

    service: Service
    reports: dict[int, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)

    @property
    def node(self) -> Node:
        return self.service.node

    def sh(self, script: str) -> str:
        return self.node.text("sh", "-ec", script)

    def gpu(self, **said: Any) -> None:
        """What the lab's nvidia-smi says; of `card` what the first GPU says."""
        told = json.loads(self.node.read("/etc/lab/nvidia.json"))
        told["gpus"][0] |= said.pop("card", {})
        self.node.write("/etc/lab/nvidia.json", json.dumps({**told, **said}).encode())

    def foreign_container(self) -> None:
        """A container of somebody else's that computes on the GPU."""
        image = self.service.lab.engine_image.reference
        name = self.sh(f"docker run -d --name foreign --entrypoint sleep {image} 100000")
        pid = self.sh(f"docker inspect -f '{{{{.State.Pid}}}}' {name}")
        self.gpu(processes=[{"pid": pid, "process_name": "python"}])

    def edited_container(self) -> None:
        """The service's container made again by hand, with one more variable."""
        image = self.service.lab.engine_image.reference
        digest = self.sh("docker inspect -f '{{index .Config.Labels \"sparkops.spec\"}}' sparkops-qwen")
        labels = f"--label sparkops.service=qwen --label sparkops.spec={digest}"
        variables = "$(docker inspect -f '{{range .Config.Env}}-e {{.}} {{end}}' sparkops-qwen)"
        self.sh(f"docker run -d {labels} {variables} -e EDITED=1 --entrypoint sleep {image} 100000")

    def moved_tag(self) -> None:
        """Another image under the name that the service's container was started from."""
        image = self.service.lab.engine_image.reference
        self.sh(f"printf 'FROM {image}\\nENV MOVED=1\\n' | docker build -q -t {image} -")

    def unreturned_memory(self) -> None:
        """A /proc/meminfo in which 40 % of the memory stand in no counter."""
        said = self.node.read("/proc/meminfo").decode()
        total = int(re.findall(r"^MemTotal:\s+(\d+)", said, re.M)[0])
        counters = {"MemFree": 50, "Buffers": 0, "Cached": 5, "AnonPages": 3, "Slab": 2}
        for name, percent in counters.items():
            said = re.sub(rf"^{name}:.*$", f"{name}: {total * percent // 100} kB", said, flags=re.M)
        self.node.write("/root/meminfo", said.encode())
        self.sh("mount --bind /root/meminfo /proc/meminfo")

    def pci_errors(self) -> None:
        """PCIe devices as the kernel shows them, with errors: a file system over those of the machine."""
        self.sh(
            "mount -t tmpfs tmpfs /sys/bus/pci/devices; cd /sys/bus/pci/devices; mkdir 0000:01:00.0; cd 0000:01:00.0;"
            "echo 0x15b3 > vendor; echo 0x1021 > device; echo TOTAL_ERR_FATAL 2 > aer_dev_fatal"
        )


def sh(script: str) -> Callable[[Table], object]:
    return lambda table: table.sh(script)


BATCHES: tuple[dict[str, Sort], ...] = (
    {
        "a file edited by hand": Sort(
            provoke=sh("echo x > /etc/lab-edited"), about="file /etc/lab-edited", key="content"
        ),
        "a file removed": Sort(provoke=sh("rm /etc/lab-removed"), about="file /etc/lab-removed", id="drift-missing"),
        "another mode": Sort(provoke=sh("chmod 600 /etc/lab-mode"), about="file /etc/lab-mode", key="mode"),
        "another link": Sort(provoke=sh("ln -sfn /etc /etc/lab-link"), about="link /etc/lab-link", key="target"),
        "a kernel parameter": Sort(
            provoke=sh("sysctl -w net.ipv4.ip_default_ttl=64"), about="sysctl net.ipv4.ip_default_ttl"
        ),
        "a package no longer held": Sort(provoke=sh("apt-mark unhold procps"), about="package procps", key="hold"),
        "a masked unit": Sort(
            provoke=sh("ln -sf /dev/null /etc/systemd/system/lab-masked.service; systemctl daemon-reload"),
            about="unit lab-masked.service",
            key="masked",
        ),
        "a stopped unit": Sort(
            provoke=sh("systemctl stop lab-stopped"), about="unit lab-stopped.service", key="running"
        ),
        "a disabled unit": Sort(
            provoke=sh("systemctl disable lab-disabled"), about="unit lab-disabled.service", key="enabled"
        ),
        "a drop-in": Sort(
            provoke=sh(
                "mkdir -p /etc/systemd/system/lab-drop-in.service.d;"
                "printf '[Service]\\nNice=5\\n' > /etc/systemd/system/lab-drop-in.service.d/mine.conf;"
                "systemctl daemon-reload"
            ),
            id="unit-drop-in-foreign",
            about="unit lab-drop-in.service",
            remedy="remove it",
        ),
        "the environment of the running container": Sort(
            provoke=Table.edited_container, about=f"unit {UNIT}", key="container_environment", severity="error"
        ),
        "the limits of the running container": Sort(
            provoke=sh("docker update --cpus 0.5 sparkops-qwen"),
            about=f"unit {UNIT}",
            key="container_settings",
            severity="error",
        ),
        "a foreign container on the GPU": Sort(
            provoke=Table.foreign_container, id="gpu.foreign-present", remedy="sparkops adopt"
        ),
        "a driver that was upgraded: its CDI specification": Sort(
            provoke=lambda table: table.gpu(driver_version="580.142"), id="cdi.stale-present", remedy="nvidia-ctk cdi"
        ),
        "a GPU that stays at its low clock": Sort(
            provoke=lambda table: table.gpu(card={"utilization.gpu": "96", "clocks.sm": "799", "power.draw": "19.5"}),
            id="gpu.stuck-present",
            remedy="off its power",
        ),
        "a pending reboot": Sort(
            provoke=sh("touch /run/reboot-required"), id="reboot.reason-present", remedy="reboot the node"
        ),
        "errors of a PCIe device": Sort(provoke=Table.pci_errors, id="pci.errors-present", remedy="journalctl -k"),
    },
    {
        "a restart policy of Docker's": Sort(
            provoke=sh("docker update --restart always sparkops-qwen"), about=f"unit {UNIT}", key="restart_policy"
        ),
        "a paused container": Sort(provoke=sh("docker pause sparkops-qwen"), about=f"unit {UNIT}", key="paused"),
        "memory that was not given back": Sort(
            provoke=Table.unreturned_memory, id="gpu.memory-high", remedy="reboot the node"
        ),
    },
    {
        "an image that its tag no longer names": Sort(
            provoke=Table.moved_tag, about=f"unit {UNIT}", key="container_image", severity="error"
        ),
    },
    {
        "a denied driver": Sort(
            provoke=lambda table: table.gpu(driver_version="590.48.01"),
            id="driver.version-denied",
            severity="error",
            remedy="driver",
        ),
    },
)
CLEAN = """
docker rm -f foreign || true
umount /sys/bus/pci/devices || true
umount /proc/meminfo || true
rm -rf /run/reboot-required /etc/systemd/system/lab-drop-in.service.d
systemctl daemon-reload
"""
ELSEWHERE = {
    "a cache of another digest": "tests/e2e/test_checkpoint.py::"
    "test_a_rotten_shard_of_the_same_size_is_repaired_by_fetching_it_alone",
    "another image under a pinned tag": "tests/e2e/test_image.py::test_another_image_under_the_pinned_tag_is_replaced",
    "NCCL of another build": "tests/worker/test_rank.py::test_two_builds_of_one_path_are_told_apart",
    "nccl.conf in the image": "tests/worker/test_rank.py::test_the_image_s_nccl_conf_is_read",
    "a GID table that differs between ranks": "tests/unit/test_between_nodes.py::"
    "test_what_is_another_on_one_node_is_told_with_every_value",
    "RDMA counters that move": "tests/e2e/test_ranks.py::test_what_moves_on_the_links_below_a_running_engine_is_drift",
    "a GID table that moved under a running service": "tests/e2e/test_ranks.py::"
    "test_what_moves_on_the_links_below_a_running_engine_is_drift",
    "PCIe width": "tests/worker/test_fabric.py::test_two_lanes_are_told",
    "twins in one subnet": "tests/worker/test_fabric.py::test_twins_in_one_subnet_are_a_named_fault",
    "foreign netplan": "tests/worker/test_fabric.py::"
    "test_other_addresses_in_a_file_of_others_are_named_and_with_adopt_set_aside",
    "a key shared between nodes": "tests/unit/roles/test_host_driver.py::"
    "test_a_key_that_lies_on_two_nodes_is_told_on_both",
    "an orphan": "tests/e2e/test_orphans.py::test_a_removed_role_is_seen_and_taken_away_only_when_asked",
    "upstream past the lock": "tests/e2e/test_lock.py::"
    "test_the_node_gets_what_is_locked_and_drift_says_when_upstream_has_more",
}
"""Sorts that need a card, a second node or a hub of their own, and the test that provokes each."""


@pytest.fixture(scope="module")
def table(lab: Lab, machine: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """A service and small things on one node, as declared."""
    shell = shell_in(lab, tmp_path_factory.mktemp("sorts"))
    shell.write("roles/own/role.yml", OWN)
    service = Service(lab, shell, machine)
    service.declare()
    path = shell.folder / "inventory.yml"
    accepted = [{"id": "kernel.version-doubtful", "reason": "the kernel of the machine that the lab runs on"}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "roles": ["own"], "accept": accepted}))
    made = Table(service)
    applied(shell, status=0)
    yield made


def look(shell: Shell) -> dict[str, Any]:
    return shell.json("drift", *(word for role in ROLES for word in ("--role", role)), status=None)


def applied(shell: Shell, status: int | None = None) -> None:
    shell.run("apply", *(word for role in ROLES for word in ("--role", role)), status=status)


def reports(table: Table, batch: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reports after all sorts of a batch were provoked, and after an apply; all is as declared before it."""
    if batch not in table.reports:
        shell = table.service.shell
        assert [each for each in look(shell)["findings"] if each["severity"] != "info"] == []
        for sort in BATCHES[batch].values():
            sort.provoke(table)
        found = look(shell)
        applied(shell)
        table.reports[batch] = (found, look(shell))
        table.sh(CLEAN)
        table.gpu(driver_version="580.95.05", processes=[], card={"utilization.gpu": "0", "clocks.sm": "208"})
        applied(shell)
    return table.reports[batch]


def told(report: dict[str, Any], sort: Sort) -> list[dict[str, Any]]:
    """What a report has of a sort."""
    steps = {each["id"]: each for each in report["steps"]}
    return [
        each
        for each in report["findings"]
        if each["id"] == sort.id
        and each["resource"].startswith(sort.about)
        and (not sort.key or sort.key in steps[each["resource"]]["changes"])
    ]


ROWS = [pytest.param(batch, name, id=name.replace(" ", "-")) for batch, sorts in enumerate(BATCHES) for name in sorts]


@pytest.mark.parametrize(("batch", "name"), ROWS)
def test_a_sort_of_drift_is_found_and_repaired_or_has_a_remedy(table: Table, batch: int, name: str) -> None:
    sort = BATCHES[batch][name]
    found, after = reports(table, batch)
    (finding,) = told(found, sort)
    assert finding["severity"] == sort.severity
    assert finding["state"] == (
        "drifted" if not sort.remedy else "violation" if sort.severity == "error" else "as-declared"
    )
    if sort.remedy:
        assert sort.remedy in finding["fix"]
        assert told(after, sort), "what sparkops does not repair is told as long as it is there"
    else:
        assert finding["origin"] in ("corrective", None), "None where a value is not told by a digest"
        assert told(after, sort) == []


@pytest.mark.parametrize("test", ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_other_sorts_are_provoked_elsewhere(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()
