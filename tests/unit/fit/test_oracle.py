"""The budget of a rank against starts of a real engine (tests/data/memory-oracle.json: vLLM 0.26.0 on an H200).

A row's deviations are printed. What is held is the law of each: weights within 0.3 %, the pool within 3 %, and never
more than 1 % larger than the engine's.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkops.cli.app import run
from sparkops.core.errors import InventoryError
from sparkops.fit.fit import Fit, Question, fit_invocation
from sparkops.fit.memory import Budget, captured
from sparkops.models import platform
from sparkops.models.invocation import of_text
from tests.errors import fails

ORACLE = json.loads((Path(__file__).parents[2] / "data" / "memory-oracle.json").read_text())
ROWS = {row["name"]: row for row in ORACLE["rows"]}
GIB = 2**30


def fit(line: str, device: str = "h200", version: str = "0.26.0") -> Fit:
    return fit_invocation(of_text(line, version), Question(device=platform.load().device(device)))


def counted(line: str, device: str = "h200") -> tuple[Fit, Budget]:
    found = fit(line, device)
    assert found.figures.budget is not None, found.unknown
    return found, found.figures.budget


@pytest.mark.parametrize("name", ROWS)
def test_a_start_of_the_engine_is_met(name: str) -> None:
    row, real = ROWS[name], ROWS[name]["real"]
    found, budget = counted(row["line"])
    assert budget.total == pytest.approx(row["total_memory"], rel=1e-4)
    weights, pool = budget.weights / real["weights"] - 1, budget.pool / real["pool"] - 1
    run_of = (budget.activation + budget.encoder) / real["activation"] - 1
    print(f"{name}: weights {weights:+.3%}, activation {run_of:+.1%}, pool {pool:+.2%}")
    assert abs(weights) <= 0.003
    assert -0.03 <= pool <= 0.01
    assert found.figures.cache is not None and found.figures.cache.block_size == real["block_size"]
    assert found.pool_tokens is not None
    assert -0.03 <= found.pool_tokens / real["tokens"] - 1 <= 0.01


@pytest.mark.parametrize("name", ROWS)
def test_the_engine_s_own_pool_gives_the_engine_s_blocks(name: str) -> None:
    real = ROWS[name]["real"]
    found = fit(f"{ROWS[name]['line']} --kv-cache-memory-bytes {real['pool']}")
    assert found.figures.pool is not None
    assert (found.figures.pool.blocks, found.pool_tokens) == (real["blocks"], real["tokens"])
    assert found.restarted_tokens == found.pool_tokens


@pytest.mark.parametrize("warm", ORACLE["warm"], ids=lambda warm: warm["name"])
def test_a_later_start_has_the_pool_that_the_first_one_s_compiler_took(warm: dict[str, Any]) -> None:
    found, budget = counted(ROWS[warm["like"]]["line"])
    later = (budget.pool + budget.restart) / warm["pool"] - 1
    print(f"{warm['name']}: pool {later:+.2%}")
    assert -0.03 <= later <= 0.01
    assert found.restarted_tokens == pytest.approx(warm["tokens"], rel=0.01)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row["steps"]])
def test_no_step_is_faster_than_its_reading_and_launches_are_told(name: str) -> None:
    found = fit(ROWS[name]["line"])
    step = found.figures.plain
    assert step is not None
    real = min(each["step_ms_median"] for each in ROWS[name]["steps"] if each["concurrency"] == 1)
    assert step.bytes / step.bandwidth * 1e3 < real
    if found.figures.single is step or found.run.effective.speculative is None:
        assert 1e3 / step.launched_tokens_per_second == pytest.approx(real, rel=0.3)


LINE = "vllm serve Qwen3.5-122B-A10B-autoround --max-num-seqs 4"


def test_an_encoder_and_the_language_model_run_one_after_the_other() -> None:
    for tokens in (2048, 8192, 16384):
        _, text = counted(f"{LINE} --max-num-batched-tokens {tokens} --language-model-only --enforce-eager")
        _, both = counted(f"{LINE} --max-num-batched-tokens {tokens} --enforce-eager")
        kept = 16384 * 3072 * 2  # what the encoder gave stays while the language model runs
        assert both.activation + both.encoder == max(text.activation + kept, 65536 * 31385)


def test_no_images_no_encoder() -> None:
    for words in ("--language-model-only", "--skip-mm-profiling", '--limit-mm-per-prompt \'{"image": 0, "video": 0}\''):
        assert counted(f"{LINE} {words}")[1].encoder == 0


@given(st.integers(256, 32768), st.integers(256, 32768), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_more_tokens_in_a_step_never_leave_a_larger_pool(one: int, other: int, eager: bool, text: bool) -> None:
    words = f"{'--enforce-eager' if eager else ''} {'--language-model-only' if text else ''}"
    less, more = (counted(f"{LINE} {words} --max-num-batched-tokens {tokens}")[1] for tokens in sorted((one, other)))
    assert more.pool <= less.pool + 1  # a byte may be lost in the sum
    assert less.restart >= 0 and more.restart >= 0
    assert not eager or (more.restart, more.graphs) == (0, 0)


def test_captured_sizes_are_those_of_the_engine() -> None:
    assert [captured(largest) for largest in (0, 1, 8, 24, 256, 512)] == [0, 1, 4, 6, 35, 51]


def test_a_device_is_memory_and_bandwidth(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{LINE} --language-model-only --max-num-batched-tokens 2048"
    asked = ["fit", "--serve", line, "--engine", "0.26.0", "--format", "json"]
    shown = []
    for words in (["--device", "h200"], ["--device", "h200", "--memory", "100", "--bandwidth", "1000"]):
        assert run([*asked, *words]) == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[1]["device"] == {"name": "h200", "memory": 100 * GIB, "bandwidth": 10**12}
    assert shown[0]["memory"]["weights"] == shown[1]["memory"]["weights"]
    share = shown[0]["memory"]["allowed"] / shown[0]["memory"]["total"]
    less = shown[0]["memory"]["pool"] - shown[1]["memory"]["pool"]
    assert less == pytest.approx((shown[0]["device"]["memory"] - 100 * GIB) * share, abs=2)
    assert shown[0]["ceiling_tokens_per_second"] == pytest.approx(4.8 * shown[1]["ceiling_tokens_per_second"], rel=0.01)
    assert shown[0]["ceiling_with_launches"] < shown[0]["ceiling_tokens_per_second"]


def test_a_device_that_nobody_described_is_an_error() -> None:
    with fails("device-unknown", InventoryError):
        platform.load().device("abacus")
    assert run(["fit", "--serve", LINE, "--engine", "0.26.0", "--device", "abacus"]) == 1


def test_what_is_a_spark_s_own_is_said_to_be_unverified() -> None:
    devices = platform.load().devices
    assert devices["spark"].unverified and not devices["h200"].unverified
    assert any("unverified" in note and "DGX Spark" in note for note in fit(LINE, "spark").notes)
    assert not any(
        "unverified" in note for note in fit(LINE.replace("-autoround", "-bf16"), "h200").notes if "H200" in note
    )
