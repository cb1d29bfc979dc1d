"""The control half of `file`: what is asked, what is wanted, what is shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core import frames
from sparkops.core.errors import InventoryError
from sparkops.core.secrets import Content, Secret
from sparkops.resources import kind
from sparkops.resources.file import File
from tests.errors import fails


def motd(**given: object) -> File:
    return File(node="n1", name="/etc/motd", where="role.yml:3:1", **given)  # type: ignore[arg-type]


def test_the_kind_is_found_by_its_name() -> None:
    assert kind("file") is File


def test_content_is_wanted_by_its_digest_and_asked_without_its_text() -> None:
    one = motd(content="hello\n")
    assert one.desired() == {
        "type": "file",
        "content": "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    }
    assert b"hello" not in frames.encode(one.ask())


def test_an_absent_file_is_wanted_as_nothing() -> None:
    assert motd(state="absent").desired() is None


def test_a_number_as_mode_is_refused_with_the_text_it_was_meant_to_be() -> None:
    with pytest.raises(InventoryError) as caught:
        motd(content="", mode=0o644)
    assert '"0644"' in caught.value.hint
    assert caught.value.where == "role.yml:3:1"


@pytest.mark.parametrize("name", ["etc/motd", "/etc/../motd", "/etc//motd", "/etc/motd/", ""])
def test_a_name_that_is_no_plain_absolute_path_is_refused(name: str) -> None:
    with fails("path-not-normal" if name.startswith("/") else "path-not-absolute"):
        File(node="n1", name=name, content="")


def test_a_secret_content_is_wanted_private_and_shown_nowhere() -> None:
    one = motd(content=Secret("hunter2"))
    assert one.desired() == {"type": "file", "content": "declared", "mode": "0600"}
    found = {"type": "file", "content": "other"}
    assert one.text_diff(found) == "(content changed (secret))"
    assert "hunter2" not in repr(one) + json.dumps(one.desired()) + one.text_diff(found)
    assert one.ask()["secret"] == b"hunter2"


def test_a_secret_in_the_validating_argv_is_refused() -> None:
    with fails("secret-on-command-line"):
        motd(content="", validate=["check", Secret("hunter2")])


def test_the_diff_shows_the_lines_that_change() -> None:
    diff = motd(content="a\nc\n").text_diff({"content": "sha256:0", "text": "a\nb\n"})
    assert diff == "--- /etc/motd\n+++ /etc/motd\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"


def test_the_diff_of_a_new_file_begins_with_nothing() -> None:
    assert motd(content="a").text_diff(None) == (
        "--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n"
    )


def test_binary_present_content_is_said_to_be_binary() -> None:
    assert "binary" in motd(content="a").text_diff({"content": "sha256:0", "size": 9})


def test_no_diff_where_only_the_mode_differs() -> None:
    one = motd(content="a", mode="0600")
    assert one.text_diff({"content": one.desired()["content"], "mode": "0644"}) == ""  # type: ignore[index]


@given(st.text(), st.text())
def test_a_diff_has_as_many_added_and_kept_lines_as_the_new_text(old: str, new: str) -> None:
    if old == new:
        return
    shown = motd(content=Content(new)).text_diff({"content": "sha256:0", "text": old})
    added = [line[1:] for line in shown.split("\n")[2:] if line.startswith("+")]
    assert all(line in new.split("\n") for line in added)
