"""An engine's figures out of two readings of its counters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.core.states import Unknown
from sparkops.models.engine import engine, versions
from sparkops.operate.measuring.figures import GAUGES, RATES, figures
from sparkops.programs.launch.api import ACCEPTED, DRAFTED


def readings(tokens: tuple[float, float] = (100.0, 150.0), **more: float) -> dict[str, Any]:
    first = {"vllm:generation_tokens_total": tokens[0], "vllm:prompt_tokens_total": 10.0}
    second = {
        "vllm:generation_tokens_total": tokens[1],
        "vllm:prompt_tokens_total": 10.0,
        "vllm:num_requests_running": 2.0,
        "vllm:num_requests_waiting": 1.0,
        "vllm:kv_cache_usage_perc": 0.25,
        **more,
    }
    return {"first": first, "second": second, "seconds": 2.0}


def reason(value: float | Unknown) -> str:
    return value.id if isinstance(value, Unknown) else ""


def test_rates_are_differences_over_the_time_between_the_readings() -> None:
    drafted = {ACCEPTED: 30.0, DRAFTED: 40.0}
    assert figures(readings(**drafted), engine("0.33.0")) == {
        "running": 2.0,
        "waiting": 1.0,
        "kv_cache_share": 0.25,
        "generation_tokens_per_second": 25.0,
        "prompt_tokens_per_second": 0.0,
        "acceptance": 0.75,
    }


def test_a_counter_that_went_back_gives_no_rate() -> None:
    assert reason(figures(readings((100.0, 3.0)), None)["generation_tokens_per_second"]) == "counter-went-back"


def test_nothing_moves_where_nobody_asked_for_anything() -> None:
    idle = {"vllm:num_requests_running": 0.0, "vllm:num_requests_waiting": 0.0}
    one = {**readings()["second"], **idle}
    assert figures({"first": one, "second": one, "seconds": None}, None)["generation_tokens_per_second"] == 0.0
    told = figures({**readings(), "seconds": None}, None)["generation_tokens_per_second"]
    assert reason(told) == "not-answered", "an engine at work needs a second reading"


def test_what_is_not_shown_is_not_known_and_what_was_not_drafted_has_no_share() -> None:
    found = figures(readings(), None)
    assert reason(found["acceptance"]) == "metric-absent"
    none = {ACCEPTED: 0.0, DRAFTED: 0.0}
    assert reason(figures(readings(**none), None)["acceptance"]) == "nothing-drafted"


@pytest.mark.parametrize("version", versions())
def test_every_listed_version_has_the_metrics_that_are_read(version: str) -> None:
    read = {*GAUGES.values(), *RATES.values(), ACCEPTED, DRAFTED}
    assert {each.removesuffix("_total") for each in read} <= {*engine(version).metrics}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SAMPLES = st.dictionaries(st.sampled_from([*GAUGES.values(), *RATES.values(), ACCEPTED, DRAFTED]), JSON)


@given(st.fixed_dictionaries({}, optional={"first": SAMPLES | JSON, "second": SAMPLES | JSON, "seconds": JSON}) | JSON)
def test_whatever_a_node_answers_each_figure_is_a_number_or_has_a_reason(answer: Any) -> None:
    found = figures(answer, engine("0.33.0"))
    assert set(found) == {*GAUGES, *RATES, "acceptance"}
    assert all(isinstance(value, float) or value.text for value in found.values())
