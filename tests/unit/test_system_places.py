"""Which paths and unit names belong to the system: laws over kinds of them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.errors import InventoryError
from sparkops.core.system_places import SHARED, TREES, fault_of_folder, fault_of_path, is_unit
from sparkops.resources.checkpoint import Checkpoint
from sparkops.resources.directory import Directory
from sparkops.resources.file import File
from sparkops.resources.link import Link
from sparkops.resources.mount import Mount
from sparkops.resources.resource import Resource
from sparkops.resources.unit import Unit
from tests.errors import fails

STATE = "/var/lib/sparkops"
PARTS = st.lists(st.text(st.characters(codec="ascii", exclude_characters="/\0"), min_size=1, max_size=5), max_size=3)


@given(st.sampled_from(TREES), PARTS)
def test_nothing_in_a_tree_of_the_system_is_free(tree: str, parts: list[str]) -> None:
    assert fault_of_folder("/".join([tree, *parts]), STATE)


@given(st.sampled_from([*TREES, STATE, f"{STATE}/models", "/home/spark", "/root"]))
def test_nothing_that_holds_such_a_tree_is_free(tree: str) -> None:
    while tree != "/":
        assert fault_of_folder(tree, STATE), tree
        tree = os.path.dirname(tree)
    assert fault_of_folder("/", STATE)


@pytest.mark.parametrize("path", [*SHARED, f"{STATE}/claims", f"{STATE}/verified/x", "/home/x/.ssh", "/root/.ssh/a"])
def test_shared_private_and_own_folders_are_taken(path: str) -> None:
    assert fault_of_folder(path, STATE)


@pytest.mark.parametrize(
    "path",
    [f"{STATE}/models/org--x/main", "/srv/m", "/home/x/models", "/root/m", "/models", "/mnt/nvme/m", "/tmp/m", "/opt/m",
     "/var/lib/models", "/home/x/.cache/huggingface", "/etcetera", "/usrlocal/x"],
)  # fmt: skip
def test_a_folder_of_its_own_is_free(path: str) -> None:
    assert fault_of_folder(path, STATE) == ""


def test_another_state_folder_is_as_taken() -> None:
    assert fault_of_folder("/srv/state/claims", "/srv/state") == "folder-is-state"
    assert fault_of_folder("/srv/state/models/a/b", "/srv/state") == ""
    assert fault_of_folder("/data", "/data/sparkops") == "folder-is-state"


@pytest.mark.parametrize(
    "folder", ["/etc", "/home", "/usr/bin", "/var/lib/docker", STATE, "/boot", "/proc/1", "/home/x"]
)
def test_a_checkpoint_there_is_refused(folder: str) -> None:
    with pytest.raises(InventoryError) as caught:
        Checkpoint(node="a", name=folder, repository="org/x")
    assert caught.value.id.startswith("folder-is-")


@pytest.mark.parametrize(
    "name",
    ["docker.service", "docker.socket", "ssh.service", "sshd.service", "dbus.service", "systemd-journald.service",
     "getty@tty1.service", "user@1000.service", "-.mount", "multi-user.target", "system.slice", "containerd.service"],
)  # fmt: skip
def test_a_text_under_a_name_of_the_system_is_refused(name: str) -> None:
    assert is_unit(name)
    with fails("unit-name-of-system", InventoryError):
        Unit(node="a", name=name, content="[Service]\n")
    Unit(node="a", name=name, running=True)


@pytest.mark.parametrize("name", ["qwen.service", "vllm.service", "my-docker.service", "sparkops-gpu-clock.service"])
def test_other_names_are_free(name: str) -> None:
    Unit(node="a", name=name, content="[Service]\n")


BELOW = PARTS.filter(lambda parts: bool(parts) and not {".", ".."} & set(parts))


@given(st.sampled_from(["/proc", "/sys", "/dev"]), BELOW, st.booleans())
def test_nothing_is_declared_among_the_files_of_the_kernel(tree: str, parts: list[str], folder: bool) -> None:
    path = "/".join([tree, *parts])
    assert fault_of_path(path, folder=folder) or path.startswith("/dev/shm")
    assert fault_of_path(tree, folder=folder)


@pytest.mark.parametrize("path", ["/", *TREES, *SHARED])
def test_no_file_or_link_takes_the_place_of_a_folder_that_every_system_has(path: str) -> None:
    with pytest.raises(InventoryError):
        File(node="a", name=path)
    with pytest.raises(InventoryError):
        Link(node="a", name=path, target="/x")


@pytest.mark.parametrize(
    "path", ["/etc/motd", "/home/notes", "/usr/local/bin/x", "/run/x", "/dev/shm/x", "/var/log/x", "/x"]
)
def test_files_below_such_folders_are_free(path: str) -> None:
    File(node="a", name=path)
    Link(node="a", name=path, target="/y")
    Directory(node="a", name=path)


def test_the_root_is_no_directory_and_no_mount_to_declare() -> None:
    with fails("path-is-system-folder", InventoryError):
        Directory(node="a", name="/")
    with fails("path-is-system-folder", InventoryError):
        Mount(node="a", name="/", source="/dev/sda", fstype="ext4")
    Directory(node="a", name="/srv", mode="0755")
    Mount(node="a", name="/var/lib/docker", source="/dev/sda", fstype="ext4")


@pytest.mark.parametrize(
    "declared", [File(node="a", name="/x"), Link(node="a", name="/x", target="/y"), Directory(node="a", name="/x")]
)
@pytest.mark.parametrize("type", ["file", "directory", "link", "other"])
def test_another_type_in_its_place_is_told_before_anything_is_touched(declared: Resource, type: str) -> None:
    found = declared.violations({"type": type}, lambda _: None)
    assert [each.id for each in found] == ([] if type == declared.file_type else ["path-occupied"])
    assert declared.violations(None, lambda _: None) == ()
