"""What people who serve models ran into, as small inputs: each says what is true, or that it is not known.

The inputs are under tests/data/cases; their checkpoints are sparse files made by its script.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparkops.cli.app import run

CASES = Path(__file__).parents[2] / "data" / "cases"
SECRET = "sk-house-4711"
LINE = "--max-model-len 32768 --max-num-seqs 4 --max-num-batched-tokens 8192 --gpu-memory-utilization 0.8"


@pytest.fixture
def cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the inputs as the current folder."""
    folder = tmp_path / "cases"
    shutil.copytree(CASES, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NO_COLOR", "1")
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = run(list(words))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def findings(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    run(["lint", *words, "--format", "json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return found


def fit(capsys: pytest.CaptureFixture[str], model: str) -> str:
    return said(capsys, "fit", "--engine", "0.28.0", "--serve", f"vllm serve ./models/{model} {LINE}")[1]


def test_s01_the_published_block_of_a_hybrid_of_another_family_is_found(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--max-num-batched-tokens 2048 --kv-cache-dtype fp8 --mamba-cache-mode align --mamba-ssm-cache-dtype float32 "
        "--enable-prefix-caching --moe-backend marlin"
    )
    line = f"vllm serve ./models/s01-nemotron-3-super {flags}"
    errors = [each for each in findings(capsys, "--engine", "0.24.0", "--serve", line) if each["severity"] == "error"]
    assert [each["id"] for each in errors] == ["align-block-over-batched-tokens"]
    assert "8320" in errors[0]["message"]


def test_s02_a_model_that_runs_on_sparks_is_not_refused(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, "inventory-own-models.yml")
    assert [each for each in found if each["severity"] == "error"] == []
    text = fit(capsys, "s01-nemotron-3-super")
    told = re.search(r"weights\s+([\d.]+) GB", text)
    assert "yes" in text and told is not None and 64 < float(told[1]) < 84


def test_s04_what_is_not_understood_is_not_known(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "4 streams of 32,768 tokens: not known" in fit(capsys, "s04-qwen3.8-flash-next")


def test_s07_a_size_that_the_file_leaves_out_is_its_class_s_default_or_not_known(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = fit(capsys, "s07-gemma-3-27b")
    told = re.search(r"weights\s+([\d.]+) GB", text)
    assert "not known: vocab_size" in text or (told is not None and abs(float(told[1]) * 1e9 / 2**30 - 51.1) < 1)


@pytest.mark.parametrize(
    ("model", "gib", "tolerance"), [("s08-gemma-4-26b-nvfp4", 17.5, 0.06), ("s10-llama-3.3-70b-nvfp4", 39.8, 0.02)]
)
def test_s08_and_s10_weights_are_those_of_the_published_format(
    cases: Path, capsys: pytest.CaptureFixture[str], model: str, gib: float, tolerance: float
) -> None:
    text = fit(capsys, model)
    told = re.search(r"weights\s+([\d.]+) GB", text)
    assert told is not None and abs(float(told[1]) * 1e9 / 2**30 - gib) <= tolerance * gib
    assert "yes" in text


def test_s07_flags_are_judged_where_sizes_are_not_known(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "vllm serve ./models/s07-gemma-3-27b --max-num-seqs 0"
    assert "number-out-of-range" in {each["id"] for each in findings(capsys, "--engine", "0.28.0", "--serve", line)}


def test_s05_and_s19_weights_that_no_key_names_are_not_missed_and_both_sides_are_told(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {each["id"]: each for each in findings(capsys, "inventory-qwen3-next.yml")}
    assert "mtp-weights-missing" not in found
    backend = found["nvfp4-moe-backend"]
    assert backend["severity"] == "warning"
    assert "July 2026" in backend["message"] and "August 2026" in backend["message"]


@pytest.mark.parametrize(
    ("file", "id", "told"),
    [
        ("s11-compose-script.yml", "import-command-other", "/launch.sh is no vLLM command"),
        ("s13-script-eval.sh", "import-evaluated", "the variable CMD"),
        ("s14-script-no-serve.sh", "import-script-without-vllm", "no `vllm serve` or `docker run` in it"),
    ],
)
def test_s11_to_s14_what_is_no_vllm_command_is_refused_with_the_reason(
    cases: Path, capsys: pytest.CaptureFixture[str], file: str, id: str, told: str
) -> None:
    status, text = said(capsys, "recipe", "import", file)
    assert status == 1
    assert id in text and told in text
    assert "summary:" not in text


def test_s15_the_default_of_a_secret_is_nowhere(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(capsys, "recipe", "import", "s15-compose-key-default.yml")
    assert status == 0
    assert "VLLM_API_KEY: !env 'LLM_KEY'" in text
    assert SECRET not in text and "house" not in text


def test_s16_the_tag_of_another_project_is_no_version_of_the_engine(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {each["id"] for each in findings(capsys, "s16-two-sparks-own-image.yml")}
    assert "engine-unknown" in found
    assert not {"engine-unlisted", "tool-parser-unknown", "reasoning-parser-unknown"} & found
    Path("line.sh").write_text(
        "docker run registry.example/team/spark-vllm-gx10:0.1.1 vllm serve a/b --tool-call-parser deepseek_v4\n"
    )
    status, text = said(capsys, "recipe", "import", "line.sh")
    assert status == 0
    assert "does not tell its vLLM" in text and "\nengine:" not in text


@pytest.fixture
def checkpoints(cases: Path) -> Path:
    subprocess.run([sys.executable, "make_checkpoints.py"], cwd=cases, check=True, timeout=60, env=os.environ)
    return cases / "checkpoints"


def test_s18_a_token_reads_the_chosen_experts_whatever_their_key_is(
    checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "decoding reads 3.7 GB" in said(capsys, "checkpoint", "inspect", "checkpoints/s18-gpt-oss-20b")[1]


def test_s21_a_repository_of_the_hub_s_cache_is_told_from_a_checkpoint(
    checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = said(capsys, "checkpoint", "inspect", "checkpoints/s21-hub/models--birds--sparrow")
    assert status == 1
    assert "snapshots/0a1b2c3d" in text
    _, text = said(capsys, "checkpoint", "inspect", "checkpoints/s21-hub/models--birds--sparrow/snapshots/0a1b2c3d")
    assert "1 tensor" in text


def test_s24_a_removed_variable_is_told_what_it_became(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"vllm serve Qwen/Qwen3.5-35B-A3B {LINE}"
    found = findings(capsys, "--engine", "0.28.0", "--env", "VLLM_USE_FLASHINFER_MOE_FP4=1", "--serve", line)
    (told,) = [each for each in found if each["id"] == "variable-unknown"]
    assert told["remedy"] == "take it out; --moe-backend says it now"
