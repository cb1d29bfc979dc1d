"""A service measured by streamed completions, on the lab's small engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sparkops.operate.measuring.bench import Cell, cell_of
from sparkops.worker.calls import Refused
from sparkops.worker.requests import bench
from sparkops.worker.system import serving
from tests.worker import small_engine
from tests.worker.nodes import call
from tests.worker.small_engine import mode

Measure = Callable[..., dict[str, Any]]


@pytest.fixture
def port() -> Iterator[int]:
    with small_engine.served() as number:
        yield number


@pytest.fixture
def measure(port: int, monkeypatch: pytest.MonkeyPatch) -> Measure:
    monkeypatch.setattr(serving.Service, "fault", lambda self: "")

    def ask(**given: Any) -> dict[str, Any]:
        place = {"host": "127.0.0.1", "port": port, "model": None, "container": None, "unit": "q.service", "spec": None}
        args = {"ask": place, "concurrency": 1, "context": 64, "tokens": 21, "seconds": 20.0, **given}
        return bench.cell(call(), args)

    return ask


def test_tokens_are_counted_by_the_engine_and_timed_from_the_first(measure: Measure, port: int) -> None:
    mode(port, "token-time=0.04")
    told = measure()
    assert told["tries"] == len(told["samples"]) == bench.TRIES
    found = cell_of(told, Cell(concurrency=1, context=64), None)
    assert found.reason is None
    assert found.prompt_tokens == pytest.approx(64, abs=2)
    assert found.decode is not None and found.together is not None and found.first is not None
    assert 5 < found.decode <= 25, "forty milliseconds a token, and never faster"
    assert found.first >= 0.04
    assert found.together <= 1.5 * found.decode, "a mean beside a median"
    assert found.acceptance == pytest.approx(0.5, abs=0.05)
    assert found.tokens_per_step == pytest.approx(2.0, abs=0.1)
    assert found.others is None, "whose processes they are is not known without a container"


def test_requests_at_once_are_one_cell(measure: Measure, port: int) -> None:
    mode(port, "token-time=0.01")
    told = measure(concurrency=4)
    assert len(told["samples"]) == 4
    found = cell_of(told, Cell(concurrency=4, context=64), None)
    assert found.together is not None and found.decode is not None
    assert found.together > found.decode, "they ran side by side"


@pytest.mark.parametrize(
    ("words", "id"),
    [("busy", "bench-answer-status"), ("garbage", "bench-answer-malformed"), ("hang", "bench-late")],
)
def test_what_is_no_measurement_is_refused(measure: Measure, port: int, words: str, id: str) -> None:
    mode(port, words)
    with pytest.raises(Refused) as refused:
        measure(seconds=0.5 if words == "hang" else 20.0)
    assert refused.value.id == id
    mode(port, "")


def test_nothing_foreign_is_measured(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.Service, "fault", lambda self: "process 4 listens there")
    with pytest.raises(Refused) as refused:
        measure()
    assert refused.value.id == "bench-foreign"
