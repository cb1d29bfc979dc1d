"""A measurement as values: medians, what is found against ceilings and bands, what is kept."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sparkops.core.errors import SparkopsError
from sparkops.core.wording import Message
from sparkops.operate.measuring.bench import Bench, Cell, Measured, _causes, _findings, cell_of, keep, last_kept
from sparkops.reports.bench import as_json, plot, render
from sparkops.reports.printer import Printer


def cell(**given: Any) -> Cell:
    return Cell(**{"concurrency": 1, "context": 512, "decode": 30.0, "first": 0.5, "together": 25.0, **given})


def measured(*cells: Cell, tool: str = "") -> Bench:
    return Bench(cluster="c", service="q", time=1e9, tokens=128, engines=(Measured(node="n", cells=cells),), tool=tool)


def ids(found: Any) -> list[str]:
    return [each.id for each in found]


def test_a_cell_is_the_median_of_its_requests() -> None:
    told = {"samples": [[0.1, 1.0, 11, 64], [0.3, 2.0, 11, 64], [0.2, 0.5, 11, 64]], "seconds": 4.0}
    found = cell_of(told, Cell(concurrency=1, context=64), None)
    assert (found.first, found.decode, found.together, found.prompt_tokens) == (0.2, 10.0, 8.25, 64)


def test_a_share_of_the_ceiling_is_judged_without_speculation_only() -> None:
    assert cell(ceiling=40.0).share == 0.75
    assert ids(_findings(cell(ceiling=40.0), (), {})) == []
    assert ids(_findings(cell(ceiling=60.0), (), {})) == ["bench-below-healthy"]
    assert ids(_findings(cell(ceiling=60.0, speculative=True), (), {})) == []
    assert cell(concurrency=4, ceiling=240.0).share == 0.5
    assert ids(_findings(cell(concurrency=4, ceiling=240.0), (), {})) == []


def test_published_figures_count_for_as_many_streams_of_the_same_recipe() -> None:
    speeds = [
        {"tokens_per_second": [31, 40], "source": "x"},
        {"tokens_per_second": 99, "streams": 4, "source": "x"},
        {"tokens_per_second": 20, "other": True, "source": "x"},
    ]
    assert ids(_findings(cell(), speeds, {})) == ["bench-below-published"]
    assert ids(_findings(cell(decode=31.0), speeds, {})) == []
    assert ids(_findings(cell(concurrency=4, decode=25.0), speeds, {})) == []


def test_the_same_cell_of_the_last_measurement_is_compared() -> None:
    last: Any = as_json(measured(cell(decode=40.0), cell(context=8192, decode=10.0)))
    last = last["engines"][0]
    assert ids(_findings(cell(), (), last)) == ["bench-slower-than-before"]
    assert ids(_findings(cell(decode=37.0), (), last)) == []
    assert ids(_findings(cell(context=1024, decode=1.0), (), last)) == []


def test_causes_are_what_was_seen_meanwhile() -> None:
    stuck = {"sm_clock_mhz": 799.0, "sm_clock_max_mhz": 3003.0, "power_watts": 19.5}
    assert ids(_causes(cell(hardware=stuck, others=("python (7)",)))) == ["bench-clock-low", "bench-gpu-shared"]
    assert ids(_causes(cell(hardware={**stuck, "sm_clock_mhz": 2400.0}, others=()))) == []
    assert ids(_causes(cell())) == []


def test_what_was_measured_is_kept_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert last_kept("c", "q") is None
    path = keep(measured(cell()), as_json(measured(cell())))
    (path.parent / "99999999T000000Z.json").write_text("{")
    found = last_kept("c", "q")
    assert found is not None
    told: Any = found["engines"]
    assert told[0]["cells"][0]["decode_tokens_per_second"] == 30.0
    assert last_kept("c", "q", "aiperf") is None, "measurements by different tools are not compared"


def test_the_screen_shows_what_is_not_known_as_a_dash() -> None:
    out = io.StringIO()
    empty = Cell(concurrency=4, context=512)
    render(measured(cell(ceiling=60.0), empty), Printer(Console(file=out, width=200, highlight=False, markup=False)))
    first, second = out.getvalue().splitlines()[1:3]
    assert "50%" in first and "█" * 24 in first
    assert second.split() == ["4", "512", *["-"] * 7]
    json.dumps(as_json(measured(empty)))


def test_an_engine_that_was_not_measured_is_told_beside_the_others() -> None:
    lost = Measured(node="b", reason=Message.of("node-silent", seconds=45))
    found = replace(measured(cell()), engines=(Measured(node="a", cells=(cell(),)), lost))
    out = io.StringIO()
    render(found, Printer(Console(file=out, width=200, highlight=False, markup=False)))
    assert "q @a" in out.getvalue() and "✗" in out.getvalue().split("q @b")[1]
    assert found.exit_status == 3


def test_without_matplotlib_the_plot_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("sparkops.reports.bench.import_module", missing)
    with pytest.raises(SparkopsError) as error:
        plot(measured(cell()), tmp_path / "x.png")
    assert error.value.id == "bench-plot-missing"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("samples", "seconds", "before", "after", "acceptance_length", "hardware", "others"), JSON
        ),
    )
)
def test_whatever_a_node_answers_is_a_cell_or_a_reason(told: dict[str, Any]) -> None:
    found = cell_of(told, Cell(concurrency=1, context=1), None)
    assert found.reason is not None or found.first is not None
    json.dumps(as_json(measured(found)))
