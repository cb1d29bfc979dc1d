"""Which paths and unit names belong to the system: laws over kinds of them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.errors import InventoryError
from sparkops.core.system_places import SHARED, TREES, fault_of_folder, is_unit
from sparkops.resources.checkpoint import Checkpoint
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
