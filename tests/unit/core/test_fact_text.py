"""Marks for facts in texts: they pass through JSON and unit files, and are filled once the facts are known."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.compile.expressions import quote_systemd
from sparkops.core import fact_text
from sparkops.core.fact_text import FactOf
from sparkops.core.messages import UNKNOWN, reason
from sparkops.core.states import Unknown

ACTIVE = FactOf("spark-01", ("fabric", "active"))
FACTS = {"spark-01": {"fabric": {"active": ["rocep1s0f0", "roceP2p1s0f0"]}}}


@given(st.text(), st.text())
def test_a_mark_passes_through_json_and_a_unit_file(before: str, after: str) -> None:
    text = json.dumps({"x": before + str(ACTIVE) + after})
    assert list(fact_text.facts_in(text)) == [ACTIVE]
    full = fact_text.filled(text, FACTS)
    assert isinstance(full, str)
    assert json.loads(full) == {"x": before + "rocep1s0f0,roceP2p1s0f0" + after}
    assert quote_systemd(str(ACTIVE)) == str(ACTIVE)


@given(st.text())
def test_a_digest_is_that_of_the_filled_text(around: str) -> None:
    text = f"{around}{ACTIVE}{around}"
    assert fact_text.holds(fact_text.digest(text))
    full = fact_text.filled(text, FACTS)
    assert isinstance(full, str)
    assert fact_text.filled(fact_text.digest(text), FACTS) == hashlib.sha256(full.encode()).hexdigest()


@given(st.text().filter(lambda text: "@" not in text))
def test_text_without_marks_stays(text: str) -> None:
    assert fact_text.filled(text, {}) == fact_text.shown(text) == text
    assert fact_text.digest(text) == hashlib.sha256(text.encode()).hexdigest()


def test_each_item_of_a_list_takes_the_suffix() -> None:
    assert FactOf("spark-01", ("fabric", "active"), ":1").value(FACTS["spark-01"]) == "rocep1s0f0:1,roceP2p1s0f0:1"


def test_a_reader_who_asked_nobody_sees_which_fact_it_is() -> None:
    assert fact_text.shown(f"x={ACTIVE}") == "x=(fabric.active of spark-01)"


@pytest.mark.parametrize(
    ("facts", "id"),
    [
        ({"spark-01": {"fabric": {"active": []}}}, "fact-empty"),
        ({"spark-01": {"fabric": {}}}, "fact-empty"),
        ({"spark-01": {"fabric": {"active": ["a b"]}}}, "fact-not-plain"),
        ({"spark-01": {"fabric": {"active": ['a","b']}}}, "fact-not-plain"),
        ({"spark-01": {"fabric": {UNKNOWN: reason("network-state-late", seconds=10)}}}, "fact-unknown"),
        ({"spark-01": Unknown.of("node-silent")}, "node-silent"),
        ({}, "fact-not-there"),
    ],
)
def test_what_is_not_known_is_never_put_into_a_text(facts: dict[str, object], id: str) -> None:
    found = fact_text.filled(f"a {ACTIVE}", facts)  # type: ignore[arg-type]  # as nodes may answer
    assert isinstance(found, Unknown) and found.id == id
