"""The node half of `directory` on a temporary folder."""

import os
from pathlib import Path
from typing import Any

import pytest

from sparkops.resources.directory import Directory
from sparkops.worker.calls import Refused
from tests.errors import fails
from tests.worker.nodes import apply

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def declared(path: Path, **given: Any) -> Directory:
    return Directory(node="n1", name=str(path), **given)


def test_a_directory_is_made_then_left_alone(tmp_path: Path) -> None:
    one = declared(tmp_path / "d", mode="0750")
    assert apply(one) == ["existence"]
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o750
    assert apply(one) == []


def test_set_id_and_sticky_bits_are_kept_exactly(tmp_path: Path) -> None:
    apply(declared(tmp_path / "d", mode="2775"))
    assert (tmp_path / "d").stat().st_mode & 0o7777 == 0o2775


def test_a_drifted_mode_is_repaired(tmp_path: Path) -> None:
    one = declared(tmp_path / "d", mode="0750")
    apply(one)
    (tmp_path / "d").chmod(0o777)
    assert apply(one) == ["mode"]


def test_an_empty_directory_is_removed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert apply(declared(tmp_path / "d", state="absent")) == ["existence"]


def test_a_directory_with_content_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("precious")
    with fails("directory-not-empty", Refused):
        apply(declared(tmp_path / "d", state="absent"))
    assert (tmp_path / "d" / "f").read_text() == "precious"


def test_missing_parents_are_made_only_where_declared(tmp_path: Path) -> None:
    with fails("folder-missing", Refused):
        apply(declared(tmp_path / "a" / "b" / "c"))
    assert apply(declared(tmp_path / "a" / "b" / "c", parents=True)) == ["existence"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_file_in_the_way_is_refused(tmp_path: Path, state: str) -> None:
    (tmp_path / "d").write_text("precious")
    with fails("path-occupied", Refused):
        apply(declared(tmp_path / "d", state=state))
    assert (tmp_path / "d").read_text() == "precious"


def test_a_link_to_a_directory_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o755)
    (tmp_path / "d").symlink_to("real")
    with fails("path-occupied", Refused):
        apply(declared(tmp_path / "d", mode="0777"))
    assert (tmp_path / "real").stat().st_mode & 0o7777 == 0o755


@as_root
def test_owner_and_group_are_set(tmp_path: Path) -> None:
    assert apply(declared(tmp_path / "d", owner="nobody", group=12)) == ["existence"]
    assert ((tmp_path / "d").stat().st_uid, (tmp_path / "d").stat().st_gid) == (65534, 12)
