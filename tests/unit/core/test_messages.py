"""Errors across a process boundary, and their words."""

from __future__ import annotations

import errno
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core import wording
from sparkops.core.errors import ConvergeFailed
from sparkops.core.messages import Refused, answer

VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=3)


@given(st.text(min_size=1), st.dictionaries(st.text(min_size=1), VALUES, max_size=3), st.text())
def test_an_error_with_an_id_is_the_same_after_its_way_through_json(
    id: str, args: dict[str, object], detail: str
) -> None:
    error = Refused(id, args, "stale", detail)
    back = Refused.from_json(error.as_json())
    assert (back.id, back.values, back.type, back.detail) == (id, args, "stale", detail)


@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_whatever_another_process_sends_as_its_error_becomes_an_error(message: object) -> None:
    assert isinstance(Refused.from_json(message), Refused)


@pytest.mark.parametrize(
    ("number", "id"),
    [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only-file-system"), (errno.ENOENT, "system-call-failed")],
)
def test_a_system_call_that_fails_has_the_id_of_its_reason(number: int, id: str) -> None:
    def fail() -> None:
        raise OSError(number, "text", "/models/x")

    assert answer(fail)["error"]["id"] == id
    assert answer(fail)["error"]["args"]["path"] == "/models/x"


def test_the_way_out_depends_on_who_shows_the_error() -> None:
    args = {"path": "/models"}
    assert "become" in wording.words("permission-denied", args)[1]
    assert "become" not in wording.words("permission-denied", args, "command")[1]


def test_an_id_without_words_is_shown_with_its_arguments() -> None:
    assert ConvergeFailed.of("no-such-id", answer=42).what == "no-such-id, answer: 42"


@pytest.mark.parametrize(
    ("template", "value", "shown"),
    [
        ("{x:bytes}", 4_200_000_000, "4.2 GB"),
        ("{x:bytes}", 12, "12 B"),
        ("{x:seconds}", 45, "45 s"),
        ("{x:seconds}", 185, "3 min 5 s"),
        ("{x:list}", ["a", "b", "c", "d", "e"], "a, b, c and 2 more"),
        ("{x:list}", "a", "a"),
        ("{x:list}", [wording.Message("no-such"), {"id": "no-such", "args": {"n": 1}}], "no-such, no-such, n: 1"),
        ("{x:aside}", "why", " (why)"),
        ("{x:aside}", "", ""),
        ("{x:or nothing}", None, "nothing"),
        ("{x:or nothing}", 0, "0"),
        ("{x:error}", None, ""),
        ("{x:lines}", [{"id": "no-such", "args": {}}] * 2, "\n  no-such\n  no-such"),
        ("{x:lines}", [{"id": "no-such", "args": {}}] * 15, 12 * "\n  no-such" + "\n  and 3 more"),
        ("{y}", 1, "(y not given)"),
    ],
)
def test_formats(template: str, value: object, shown: str) -> None:
    assert wording._Formatter().vformat(template, (), {"x": value}) == shown


def test_every_entry_of_the_catalogue_is_well_formed() -> None:
    for entry in wording.entries().values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.id), entry.id
        assert entry.message and not entry.message.endswith("."), entry.id
        assert not entry.fix.endswith("."), entry.id
        assert not entry.fix_command.endswith("."), entry.id
