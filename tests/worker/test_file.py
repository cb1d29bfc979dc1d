"""The node half of `file` on a temporary folder: what is seen, what is done, and what is refused."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from sparkops.core.secrets import Secret
from sparkops.resources.file import File
from sparkops.worker import dispatch
from sparkops.worker.calls import Refused
from sparkops.worker.kinds import file
from sparkops.worker.system import safe_path
from tests.errors import fails
from tests.worker.nodes import apply, call

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def declared(path: Path, **given: Any) -> File:
    return File(node="n1", name=str(path), **given)


def test_a_file_is_created_then_left_alone(tmp_path: Path) -> None:
    one = declared(tmp_path / "f", content="hello\n", mode="0640")
    assert apply(one) == ["existence"]
    assert (tmp_path / "f").read_text() == "hello\n"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640
    assert apply(one) == []


def test_drifted_content_is_seen_with_its_text_and_repaired(tmp_path: Path) -> None:
    one = declared(tmp_path / "f", content="hello\n")
    (tmp_path / "f").write_text("other\n")
    found = file.observe(one.ask())
    assert found is not None
    assert found["text"] == "other\n"
    assert apply(one) == ["content"]
    assert (tmp_path / "f").read_text() == "hello\n"


def test_what_is_not_declared_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("other\n")
    (tmp_path / "f").chmod(0o604)
    apply(declared(tmp_path / "f", content="hello\n"))
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o604


def test_only_the_mode_is_set_where_only_the_mode_differs(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello\n")
    (tmp_path / "f").chmod(0o604)
    before = (tmp_path / "f").stat().st_ino
    assert apply(declared(tmp_path / "f", content="hello\n", mode="0600")) == ["mode"]
    assert (tmp_path / "f").stat().st_ino == before


def test_an_absent_file_is_removed_once(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    gone = declared(tmp_path / "f", state="absent")
    assert apply(gone) == ["existence"]
    assert apply(gone) == []


@pytest.mark.parametrize("data", [b"a\0b", b"\xff\xfe", b"x" * (65 << 10)])
def test_binary_or_large_content_does_not_travel_back(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "f").write_bytes(data)
    found = file.observe(declared(tmp_path / "f", content="hello").ask())
    assert found is not None
    assert "text" not in found
    assert found["content"] == "sha256:" + hashlib.sha256(data).hexdigest()


def test_equal_content_does_not_travel_back(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hello")
    found = file.observe(declared(tmp_path / "f", content="hello").ask())
    assert found is not None
    assert "text" not in found


def test_a_huge_file_of_another_size_is_told_apart_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as big:
        big.truncate(1 << 40)
    found = file.observe(declared(tmp_path / "f", content="hello").ask())
    assert found is not None
    assert found["content"].startswith("other (1099511627776 bytes")


def test_a_secret_never_travels_back(tmp_path: Path) -> None:
    one = declared(tmp_path / "f", content=Secret("hunter2"))
    (tmp_path / "f").write_text("hunter1")
    (tmp_path / "f").chmod(0o644)
    found = file.observe(one.ask())
    assert found is not None
    assert found["content"] == "other"
    assert not any("hunter" in str(value) or "sha256" in str(value) for value in found.values())
    assert apply(one) == ["content", "mode"]
    assert (tmp_path / "f").read_text() == "hunter2"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_what_was_secret_does_not_travel_back_when_plain_content_takes_its_place(tmp_path: Path, mode: int) -> None:
    apply(declared(tmp_path / "f", content=Secret("hunter2"), mode=f"{mode:04o}"))
    plain = declared(tmp_path / "f", content="hello")
    found = file.observe(plain.ask())
    assert found is not None
    digest = hashlib.sha256(b"hunter2").hexdigest()
    assert not any("hunter" in str(value) or digest in str(value) for value in found.values())
    assert "not shown" in plain.text_diff(found)
    assert apply(plain) == ["content"]
    assert (tmp_path / "f").read_text() == "hello"
    assert apply(plain) == []


def test_a_private_file_that_changes_between_look_and_act_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("one")
    (tmp_path / "f").chmod(0o600)
    plain = declared(tmp_path / "f", content="hello")
    before = file.observe(plain.ask())
    (tmp_path / "f").write_text("two")
    assert file.observe(plain.ask()) != before


def test_content_that_does_not_validate_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("good\n")
    one = declared(tmp_path / "f", content="bad\n", validate=["grep", "-q", "good", "{path}"])
    with fails("content-invalid", Refused):
        apply(one)
    assert (tmp_path / "f").read_text() == "good\n"
    assert os.listdir(tmp_path) == ["f"]


def test_a_secret_that_does_not_validate_is_not_quoted(tmp_path: Path) -> None:
    with fails("secret-content-invalid", Refused) as caught:
        apply(declared(tmp_path / "f", content=Secret("hunter2"), validate=["sh", "-c", "cat $0; exit 1", "{path}"]))
    assert "hunter2" not in str(caught.value) + caught.value.detail


def test_a_link_in_the_way_is_seen_and_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("precious")
    (tmp_path / "f").symlink_to(tmp_path / "real")
    one = declared(tmp_path / "f", content="hello")
    found = file.observe(one.ask())
    assert found is not None
    assert found["type"] == "link"
    with fails("path-occupied", Refused):
        apply(one)
    assert (tmp_path / "real").read_text() == "precious"


def test_a_directory_in_the_way_is_refused_both_ways(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with fails("path-occupied", Refused):
        apply(declared(tmp_path / "f", content="hello"))
    with fails("file-is-directory", Refused):
        apply(declared(tmp_path / "f", state="absent"))


def test_a_fifo_in_the_way_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    found = file.observe(declared(tmp_path / "f", content="hello").ask())
    assert found is not None
    assert found["type"] == "other"


def test_a_missing_folder_is_named_with_the_way_out(tmp_path: Path) -> None:
    with fails("folder-missing", Refused) as caught:
        apply(declared(tmp_path / "no" / "f", content="hello"))
    assert caught.value.values["folder"] == f"{tmp_path}/no"


def test_an_owner_that_the_node_lacks_is_named(tmp_path: Path) -> None:
    with fails("user-missing", Refused):
        apply(declared(tmp_path / "f", content="hello", owner="nobody-of-that-name"))


def test_what_a_crash_left_beside_is_taken_over(tmp_path: Path) -> None:
    with safe_path.place(str(tmp_path / "f")) as place:
        (tmp_path / place.beside).write_text("half")
    apply(declared(tmp_path / "f", content="hello"))
    assert os.listdir(tmp_path) == ["f"]


def test_a_change_between_the_look_and_the_act_is_refused(tmp_path: Path) -> None:
    one = declared(tmp_path / "f", content="hello")
    (tmp_path / "f").write_text("first")
    before = file.observe(one.ask())
    (tmp_path / "f").write_text("second")
    answer = dispatch.converge(
        call(),
        {
            "kind": "file",
            "id": one.id,
            "ask": one.ask(),
            "before": before,
            "volatile": sorted(one.volatile),
            "want": one.desired(),
            "action": "update",
            "act": {"content": b"hello"},
        },
    )
    assert answer["changed"] == ["content"]
    assert answer["found"]["text"] == "second", "what is there now comes with the answer"
    assert (tmp_path / "f").read_text() == "second"


@as_root
def test_a_folder_reached_through_a_link_of_someone_else_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    one = declared(tmp_path / "link" / "f", content="hello")
    os.lchown(tmp_path / "link", 65534, 65534)
    look = dispatch.look("file", one.id, one.ask())
    assert look["$unknown"]["id"] == "path-through-link"
    with fails("path-through-link", Refused):
        file.converge(call(), one.ask(), None, dict(one.desired() or {}), {"content": b"hello"})
    os.lchown(tmp_path / "link", 0, 0)
    assert apply(one) == ["existence"]


@as_root
def test_a_hard_link_in_a_folder_of_someone_else_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.link(tmp_path / "precious", theirs / "f")
    os.chown(theirs, 65534, 65534)
    with fails("file-hard-linked", Refused):
        apply(declared(theirs / "f", owner=65534))
    assert (tmp_path / "precious").stat().st_uid == 0


@as_root
def test_owner_and_group_are_set_by_name_or_number(tmp_path: Path) -> None:
    assert apply(declared(tmp_path / "f", content="x", owner="nobody", group=12)) == ["existence"]
    assert apply(declared(tmp_path / "f", content="x", owner=65534, group="12")) == []
    assert (tmp_path / "f").stat().st_uid == 65534
    assert (tmp_path / "f").stat().st_gid == 12
