"""The benchmarks follow what they measure: each module is there, and one whose work is made by hand still runs."""

from __future__ import annotations

from importlib import import_module

import pytest

from bench.__main__ import BENCHMARKS
from bench.report import RESULTS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_run_and_its_last_figures_are_kept(name: str) -> None:
    assert callable(import_module(f"bench.{name}").measure)
    assert (RESULTS / f"{name}.json").is_file()


def test_the_launcher_of_the_benchmark_watches_its_engine() -> None:
    figures = import_module("bench.watching").measure(3)
    assert figures["seconds"] == 3 and figures["cpu_seconds"] < 3
