"""The roles host, driver and uniform: what they make of an inventory, and how their requirements judge nodes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sparkops.compile.compiler import compile_inventory
from sparkops.core.plan import Violation
from sparkops.core.secrets import Content
from sparkops.core.states import Observed, Unknown
from sparkops.inventory.load import load
from sparkops.resources.require import Require
from sparkops.resources.resource import Resource

GIB = 1 << 30
SPARK: Mapping[str, Mapping[str, Any]] = {
    "os": {"release": "ubuntu 24.04", "arch": "aarch64", "kernel": "6.17.0-1031-nvidia", "machine": "a"},
    "memory": {"total_bytes": 121 * GIB, "swap_total_bytes": 16 * GIB},
    "disk": {"free_bytes": 900 * GIB, "read_only": False},
    "desktop": {"graphical": False},
    "gpu": {
        "present": True,
        "name": "NVIDIA GB10",
        "compute_capability": "12.1",
        "driver_version": "580.173.02",
        "cuda_version": "13.0",
    },
    "firmware": {"bios_version": "5.36_0ACUM023"},
    "docker": {"present": True, "version": "29.2.1", "gpu_access": ["runtime"]},
    "cdi": {"stale": [], "toolkit": "1.19.0"},
    "reboot": {"reasons": []},
    "gpu_users": {"present": True, "foreign": [], "unaccounted_bytes": GIB},
    "pci": {"errors": []},
    "keys": {"host": [], "private": []},
}


def declared(tmp_path: Path, text: str = "", roles: tuple[str, ...] = ("host", "driver")) -> dict[str, Resource]:
    file = tmp_path / "inventory.yml"
    file.write_text(f"version: 1\ncluster: attic\nnodes: {{a: {{host: 192.0.2.1}}, b: {{host: 192.0.2.2}}}}\n{text}")
    return {each.id: each for each in compile_inventory(load(file), roles=roles).resources}


def judged(made: Mapping[str, Resource], nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Violation]:
    """The violations by id and node, of nodes that answer with SPARK and what is given here, group by group."""
    answers: dict[str, Observed] = {}
    for each in made.values():
        if isinstance(each, Require):
            group = {**SPARK[each.name], **nodes.get(each.node, {}).get(each.name, {})}
            answers[each.id] = {key: group.get(key) for key in (*each.expect, "present")}
    lookup = answers.get
    found = [
        violation
        for id, answer in answers.items()
        for violation in made[id].violations(answer, lambda wanted: lookup(wanted, Unknown("?")))
    ]
    return {f"{each.id} @{each.node}": each for each in found}


def text(resource: Resource) -> str:
    content = getattr(resource, "content", None)
    assert isinstance(content, Content)
    return content.encode().decode()


def test_a_dgx_spark_as_it_comes_has_nothing_against_it(tmp_path: Path) -> None:
    assert judged(declared(tmp_path), {}) == {}


@pytest.mark.parametrize(
    ("group", "values", "id", "severity"),
    [
        ("gpu", {"driver_version": "590.48.01"}, "driver.version-denied", "error"),
        ("gpu", {"driver_version": "610.1"}, "driver.version-doubtful", "warning"),
        ("gpu", {"name": "NVIDIA H100"}, "gpu.name-unlisted", "error"),
        ("gpu", {"present": False}, "gpu.absent", "error"),
        ("os", {"kernel": "6.17.0-1008-nvidia"}, "kernel.version-denied", "error"),
        ("os", {"release": "debian 12"}, "os.release-unlisted", "error"),
        ("docker", {"gpu_access": []}, "docker.gpu-access-lacks", "error"),
        ("cdi", {"stale": ["/etc/cdi/nvidia.yaml names 1, 2 runs"]}, "cdi.stale-present", "warning"),
        ("gpu", {"stuck": "799 MHz at 96 % utilisation"}, "gpu.stuck-present", "warning"),
        ("gpu_users", {"foreign": ["process 4 (ollama)"]}, "gpu.foreign-present", "warning"),
        ("gpu_users", {"unaccounted_bytes": 60 * GIB}, "gpu.memory-high", "warning"),
        ("pci", {"errors": ["0000:01:00.0 (15b3:1021): 2 fatal"]}, "pci.errors-present", "warning"),
        ("reboot", {"reasons": ["kernel x runs, y is installed"]}, "reboot.reason-present", "warning"),
        ("memory", {"total_bytes": 23 * GIB}, "memory.total-bytes-low", "error"),
        ("disk", {"free_bytes": GIB}, "disk/.free-bytes-low", "error"),
        ("desktop", {"graphical": True}, "desktop.graphical-differs", "info"),
    ],
)
def test_what_is_wrong_on_one_node_is_told_with_a_remedy(
    tmp_path: Path, group: str, values: Mapping[str, Any], id: str, severity: str
) -> None:
    found = judged(declared(tmp_path), {"a": {group: values}})
    assert list(found) == [f"{id} @a"]
    assert found[f"{id} @a"].severity == severity
    assert found[f"{id} @a"].message.fix


def test_the_inventory_takes_another_system_and_another_driver(tmp_path: Path) -> None:
    variables = (
        'vars: {host: {os: {accept: ["debian 12"], arch: [x86_64]}, memory: {at_least_gib: 8}},'
        ' driver: {accept: ["590.*"]}}\n'
    )
    odd = {
        "os": {"release": "debian 12", "arch": "x86_64"},
        "memory": {"total_bytes": 23 * GIB},
        "gpu": {"driver_version": "590.48.01"},
    }
    assert judged(declared(tmp_path, variables), {"a": odd, "b": odd}) == {}


def test_swap_can_be_forbidden(tmp_path: Path) -> None:
    made = declared(tmp_path, "vars: {host: {swap: {at_most_gib: 0}}}\n")
    assert "swap.swap-total-bytes-high @a" in judged(made, {})


def test_without_a_clock_there_is_no_unit_and_with_one_it_tells_its_inputs(tmp_path: Path) -> None:
    assert "unit sparkops-gpu-clock.service @a" not in declared(tmp_path)
    unit = declared(tmp_path, "vars: {host: {gpu: {clock: [200, 2150]}}}\n")["unit sparkops-gpu-clock.service @a"]
    assert "ExecStart=/usr/bin/nvidia-smi -lgc 200,2150\n" in text(unit)
    assert f"Environment=SPARKOPS_INPUTS={unit.inputs}\n" in text(unit)  # type: ignore[attr-defined]


def test_the_units_own_words_for_its_inputs_are_those_of_the_kind(tmp_path: Path) -> None:
    from sparkops.resources.unit import inputs_lines

    unit = declared(tmp_path, "vars: {host: {gpu: {clock: [200, 2150]}}}\n")["unit sparkops-gpu-clock.service @a"]
    for line in inputs_lines(unit.inputs, main_process=False):  # type: ignore[attr-defined]
        assert line + "\n" in text(unit)


def test_earlyoom_is_started_from_its_declared_floor(tmp_path: Path) -> None:
    made = declared(tmp_path, "vars: {host: {protection: {earlyoom: {term_mib: 400, prefer: ^VLLM}}}}\n")
    spared = "^(sshd|systemd|dbus-daemon|dockerd|containerd)"
    line = f'EARLYOOM_ARGS="-M 409600,102400 -s 100 -r 3600 --avoid {spared} --prefer ^VLLM"'
    assert line in text(made["file /etc/default/earlyoom @a"]).splitlines()
    inputs = made["unit earlyoom.service @a"].inputs  # type: ignore[attr-defined]
    assert f"SPARKOPS_INPUTS={inputs}\n" in text(
        made["file /etc/systemd/system/earlyoom.service.d/60-sparkops.conf @a"]
    )


def test_earlyoom_can_be_switched_off_or_left_alone(tmp_path: Path) -> None:
    off = declared(tmp_path, "vars: {host: {protection: {earlyoom: {enabled: false}}}}\n")
    unit = off["unit earlyoom.service @a"]
    assert (unit.running, unit.enabled) == (False, False)  # type: ignore[attr-defined]
    assert "package earlyoom @a" not in off
    alone = declared(tmp_path, "vars: {host: {protection: {earlyoom: {enabled: null}}}}\n")
    assert not [id for id in alone if "earlyoom" in id]


def test_a_way_in_is_kept_by_a_drop_in_that_systemd_has_to_know(tmp_path: Path) -> None:
    made = declared(tmp_path)
    unit = made["unit ssh.service @a"]
    assert unit.properties == {"OOMScoreAdjust": -500, "MemoryMin": 64 << 20}  # type: ignore[attr-defined]
    assert "MemoryMin=64M\n" in text(made["file /etc/systemd/system/ssh.service.d/60-sparkops.conf @a"])
    assert "MemoryMin=128M\n" in text(made["file /etc/systemd/system/user.slice.d/60-sparkops.conf @a"])


def test_the_desktop_is_only_switched_off_when_that_is_declared(tmp_path: Path) -> None:
    link = "link /etc/systemd/system/default.target @a"
    assert link not in declared(tmp_path)
    made = declared(tmp_path, "vars: {host: {desktop: disabled}}\n")
    assert made[link].target == "/lib/systemd/system/multi-user.target"  # type: ignore[attr-defined]
    assert "require desktop @a" not in made


def test_kernel_parameters_and_holds_come_from_the_inventory(tmp_path: Path) -> None:
    made = declared(tmp_path, "vars: {host: {sysctl: {net.core.rmem_max: 16777216}, hold: [docker-ce]}}\n")
    assert "sysctl net.core.rmem_max @b" in made
    assert "package docker-ce @b" in made


def test_driver_and_kernel_packages_are_held_and_nothing_is_installed(tmp_path: Path) -> None:
    packages = {id: each for id, each in declared(tmp_path, roles=("driver",)).items() if id.startswith("package ")}
    assert "package nvidia-driver-* @a" in packages
    assert all(each.hold is True for each in packages.values())  # type: ignore[attr-defined]


SERVICE = """
services:
  qwen: {nodes: [a, b]}
"""


@pytest.mark.parametrize(
    ("group", "values", "id", "severity"),
    [
        ("gpu", {"driver_version": "580.95.05"}, "alike.driver-uneven", "error"),
        ("os", {"kernel": "6.17.0-1026-nvidia"}, "alike.kernel-uneven", "error"),
        ("memory", {"total_bytes": 59 * GIB}, "alike.memory-uneven", "error"),
        ("firmware", {"bios_version": "5.36_0ACUM018"}, "alike.firmware-uneven", "warning"),
    ],
)
def test_nodes_of_one_service_that_differ_are_both_named(
    tmp_path: Path, group: str, values: Mapping[str, Any], id: str, severity: str
) -> None:
    made = declared(tmp_path, SERVICE, roles=("uniform",))
    found = judged(made, {"a": {group: values}, "b": {"os": {"machine": "b"}}})
    assert list(found) == [f"{id} @a", f"{id} @b"]
    assert {each.severity for each in found.values()} == {severity}
    assert all("a " in each.message.text and "b " in each.message.text for each in found.values())


@pytest.mark.parametrize(("key", "id"), [("host", "alike.host-key"), ("private", "alike.private-key")])
def test_a_key_that_lies_on_two_nodes_is_told_on_both(tmp_path: Path, key: str, id: str) -> None:
    made = declared(tmp_path, SERVICE, roles=("uniform",))
    shared = {"a": {"keys": {key: ["SHA256:1", "SHA256:2"]}}, "b": {"keys": {key: ["SHA256:3", "SHA256:2"]}}}
    found = judged(made, {"a": shared["a"], "b": {**shared["b"], "os": {"machine": "b"}}})
    assert list(found) == [f"{id}-shared @a", f"{id}-shared @b"]


def test_makers_may_leave_a_little_less_memory(tmp_path: Path) -> None:
    made = declared(tmp_path, SERVICE, roles=("uniform",))
    assert judged(made, {"a": {"memory": {"total_bytes": 119 * GIB}}, "b": {"os": {"machine": "b"}}}) == {}


def test_two_names_of_one_machine_are_a_violation(tmp_path: Path) -> None:
    assert "alike.machine-shared @a" in judged(declared(tmp_path, SERVICE, roles=("uniform",)), {})


def test_a_node_that_is_taken_down_keeps_its_ssh_and_loses_what_was_ours(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yml"
    file.write_text(
        "version: 1\ncluster: attic\nvars: {host: {gpu: {clock: [200, 2150]}}}\n"
        "nodes: {a: {host: 192.0.2.1, state: retired}}\n"
    )
    made = {each.id: each for each in compile_inventory(load(file), roles=("host", "driver")).resources}
    assert not [id for id in made if id.startswith("require ")]
    assert [id for id in made if id.startswith("unit ")] == ["unit sparkops-gpu-clock.service @a"]
    assert {each.desired() is None for each in made.values()} == {True}
    assert "file /etc/systemd/system/ssh.service.d/60-sparkops.conf @a" in made
