"""Progress that a node tells, as an event: whatever it says, the event has the types that its readers go by."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.events import StepProgress
from sparkops.reports.plain_progress import amount

VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(0, 1e18) | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from(["text", "done", "total", "unit", "rate", "more"]), VALUES))
def test_any_progress_becomes_one_that_can_be_shown(told: dict[str, object]) -> None:
    event = StepProgress.from_mapping("n1", "file /a @n1", told)
    assert isinstance(event.text, str) and event.unit
    assert all(each is None or isinstance(each, (int, float)) for each in (event.done, event.total, event.rate))
    amount(event)


def test_what_is_told_arrives_with_its_rate() -> None:
    event = StepProgress.from_mapping("n1", "x", {"done": 1, "total": 2, "unit": "layers", "rate": 0.5, "text": "a"})
    assert (event.done, event.total, event.unit, event.rate, event.text) == (1, 2, "layers", 0.5, "a")
