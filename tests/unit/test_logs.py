"""Entries of a journal, out of what journalctl prints."""

from __future__ import annotations

import json

from sparkops.operate.logs import Entry, parse


def said(**fields: object) -> Entry | None:
    return parse("n", 1, json.dumps(fields).encode())


def test_an_entry_has_its_time_text_and_priority() -> None:
    assert said(__REALTIME_TIMESTAMP="1500000", MESSAGE="hello", PRIORITY="3") == Entry(1.5, "n", "hello", 3)


def test_a_message_that_is_no_text_is_a_list_of_bytes() -> None:
    entry = said(__REALTIME_TIMESTAMP="1", MESSAGE=[104, 105, 255])
    assert entry is not None
    assert entry.text == "hi\ufffd"


def test_an_entry_without_message_is_none() -> None:
    assert said(__REALTIME_TIMESTAMP="1", MESSAGE=None) is None


def test_what_is_no_entry_is_shown_as_it_is() -> None:
    assert parse("n", 1, b"[1]") == Entry(0.0, "n", "[1]", 4)
    assert parse("n", 2, b"No journal files were found.") == Entry(0.0, "n", "No journal files were found.", 4)
