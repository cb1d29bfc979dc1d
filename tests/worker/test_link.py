"""The node half of `link` on a temporary folder."""

import os
from pathlib import Path

import pytest

from sparkops.resources.link import Link
from sparkops.worker.calls import Refused
from tests.errors import fails
from tests.worker.nodes import apply


def declared(path: Path, target: str = "", state: str = "present") -> Link:
    return Link(node="n1", name=str(path), target=target, state=state)


def test_a_link_is_made_then_left_alone(tmp_path: Path) -> None:
    one = declared(tmp_path / "l", "/somewhere/else")
    assert apply(one) == ["existence"]
    assert os.readlink(tmp_path / "l") == "/somewhere/else"
    assert apply(one) == []


def test_a_link_to_somewhere_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("/old")
    assert apply(declared(tmp_path / "l", "/new")) == ["target"]
    assert os.listdir(tmp_path) == ["l"]


def test_a_link_is_removed_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "l").symlink_to("real")
    assert apply(declared(tmp_path / "l", state="absent")) == ["existence"]
    assert os.listdir(tmp_path) == ["real"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_real_file_is_never_replaced_nor_removed(tmp_path: Path, state: str) -> None:
    (tmp_path / "l").write_text("precious")
    with fails("path-occupied", Refused):
        apply(declared(tmp_path / "l", "/new", state))
    assert (tmp_path / "l").read_text() == "precious"


def test_a_link_without_target_is_refused() -> None:
    with fails("link-target-invalid"):
        declared(Path("/l"))
