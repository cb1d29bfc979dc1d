"""The budget of a rank against starts of a real engine with nine families (tests/data/memory-families.json).

The same laws as test_oracle.py, whose rows are of one family. A row's deviations are printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkops.fit.fit import Fit, Question, fit_invocation
from sparkops.fit.memory import captured
from sparkops.models import platform
from sparkops.models.invocation import of_text

DATA = Path(__file__).parents[2] / "data"
ROWS: dict[str, dict[str, Any]] = {
    row["name"]: row for row in json.loads((DATA / "memory-families.json").read_text())["rows"]
}
FAMILIES = json.loads((DATA / "families.json").read_text())["families"]
OTHER_KERNELS = {
    ("gpt-oss-20b", "published"): "experts are padded for Marlin on a GB10, and are not on Hopper",
    ("llama-3.3-70b", "awq-form"): "Hopper's kernel keeps zero points at 16 bits, Marlin at 4",
}
"""Whose weights take other bytes on an H200 than on a GB10, which is what is counted."""


def fit(row: dict[str, Any], folder: Path, more: str = "") -> Fit:
    for name, content in FAMILIES[row["family"]]["configs"][row["variant"]].items():
        (folder / name).write_text(json.dumps(content))
    line = f"vllm serve {folder} {row['arguments']} {more}"
    return fit_invocation(of_text(line, "0.26.0"), Question(device=platform.load().device("h200")))


@pytest.mark.parametrize("name", ROWS)
def test_a_start_of_the_engine_is_met(name: str, tmp_path: Path) -> None:
    row, real = ROWS[name], ROWS[name]["real"]
    found = fit(row, tmp_path)
    budget = found.figures.budget
    assert budget is not None, found.unknown
    weights, pool = budget.weights / real["weights"] - 1, budget.pool / real["pool"] - 1
    run = budget.activation / real["activation"] - 1
    print(f"{name} ({row['family']}): weights {weights:+.3%}, activation {run:+.1%}, pool {pool:+.2%}")
    if (row["family"], row["variant"]) not in OTHER_KERNELS:
        assert abs(weights) <= 0.0035
    assert run >= -0.05
    assert -0.03 <= pool <= 0.01
    assert found.pool_tokens is not None
    assert -0.03 <= found.pool_tokens / real["tokens"] - 1 <= 0.01


@pytest.mark.parametrize("name", ROWS)
def test_the_engine_s_own_pool_gives_the_engine_s_blocks(name: str, tmp_path: Path) -> None:
    real = ROWS[name]["real"]
    found = fit(ROWS[name], tmp_path, f"--kv-cache-memory-bytes {real['pool']}")
    assert found.figures.pool is not None and found.figures.cache is not None
    assert (found.figures.cache.block_size, found.figures.pool.blocks) == (real["block_size"], real["blocks"])
    assert found.pool_tokens == real["tokens"]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.get("steps")])
def test_no_step_is_faster_than_its_reading(name: str, tmp_path: Path) -> None:
    step = fit(ROWS[name], tmp_path).figures.plain
    assert step is not None
    real = min(each["step_ms_median"] for each in ROWS[name]["steps"] if each["concurrency"] == 1)
    assert step.bytes / step.bandwidth * 1e3 < real


def test_gpt_oss_has_graphs_of_up_to_1024_tokens_where_nothing_else_is_given(tmp_path: Path) -> None:
    row = ROWS["oss"]
    usual = fit(row, tmp_path)
    assert usual.run.effective.max_capture_size == 1024 and captured(1024) == 83
    assert usual.figures.budget is not None
    assert usual.figures.budget.graphs == pytest.approx(row["real"]["graphs"], rel=0.05)
    given = fit(row, tmp_path, "--max-cudagraph-capture-size 8")
    assert given.run.effective.max_capture_size == 8
