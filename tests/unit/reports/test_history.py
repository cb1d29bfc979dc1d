"""`history` and `generations` of nodes whose record anybody may have edited: a line each, whatever stands there."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sparkops
from sparkops.cli.generations import _lines
from sparkops.operate.history import runs
from sparkops.reports.formatting import local, moment
from sparkops.reports.history import render
from sparkops.reports.printer import Plain, Printer

NUMBERS = st.integers() | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["time", "who", "from", "command", "reason", "run", "steps", "number", "inputs"])
ENTRIES = st.lists(st.dictionaries(KEYS, VALUES | st.lists(st.fixed_dictionaries({"outcome": VALUES}))), max_size=4)


@given(entries=ENTRIES)
@example(entries=[{"time": 1e300, "steps": 7}, {"time": float("nan"), "steps": [5, {"outcome": [1]}]}])
def test_every_entry_becomes_a_line(entries: Any) -> None:
    out = io.StringIO()
    found = runs({"a": entries}, 20)
    for each in found:
        render(each, Printer(Plain(out)), verbose=True)
    assert len(out.getvalue().splitlines()) >= len(found)


@pytest.mark.parametrize("odd", [1.9e9, 0.0, "x"], ids=["ahead", "unset", "none"])
def test_a_clock_that_was_wrong_for_a_while_changes_no_order_within_a_record(odd: Any) -> None:
    times = [1.70e9, 1.71e9, odd, 1.72e9, 1.73e9]
    record = [{"run": f"a{number}", "time": each} for number, each in enumerate(times)]
    other = [{"run": "b0", "time": 1.715e9}, {"run": "b1", "time": 1.725e9}]
    found = [str(each.about["run"]) for each in runs({"a": record, "b": other}, 20)]
    assert [each for each in found if each in {f"a{number}" for number in range(5)}] == [f"a{n}" for n in range(5)]
    assert found[-3:] == ["a3", "b1", "a4"]
    assert [each.about["run"] for each in runs({"a": record, "b": other}, 1)] == ["a4"]


@given(generations=ENTRIES)
def test_every_generation_becomes_a_line(generations: Any) -> None:
    assert len(_lines({"generations": generations})) == max(1, len(generations))


@given(time=VALUES)
def test_a_time_that_no_calendar_has_is_a_question_mark(time: Any) -> None:
    assert re.fullmatch(r"\?|-?\d{1,4}-\d\d-\d\d \d\d:\d\d:\d\d", local(time))
    assert moment(time).endswith(" UTC")


@pytest.mark.parametrize("folder", ["reports", "cli"])
def test_times_of_nodes_are_written_by_one_function(folder: str) -> None:
    others = [
        path.name
        for path in (Path(sparkops.__file__).parent / folder).rglob("*.py")
        if re.search(r"fromtimestamp\(|localtime\(", path.read_text())
        and path.name not in ("formatting.py", "junit.py")
    ]
    assert others == [], "junit.py writes the run's own time"
