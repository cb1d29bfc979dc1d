"""`sparkops lint --serve` as a user or a program calls it: status, the JSON contract, SARIF, annotations."""

import io
import json
from pathlib import Path

import pytest

from sparkops.cli.app import run

CRASH = "--kv-cache-dtype fp8 --enable-prefix-caching"
KEYS = {"id", "severity", "message", "subject", "remedy", "source", "engine"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the config.json of the 122B."""
    models = json.loads((Path(__file__).parent / "verdicts.json").read_text())["models"]
    (tmp_path / "config.json").write_text(json.dumps(models["Qwen3.5-122B-A10B-autoround"]))
    return tmp_path


def lint(*words: str) -> int:
    return run(["lint", *words])


def test_a_line_that_crashes_has_status_1_and_says_the_number(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("--serve", f"vllm serve {model} {CRASH}", "--engine", "0.19.1") == 1
    out = capsys.readouterr().out
    assert "block_size (4176) must be <= max_num_batched_tokens (2048)" in out
    assert "[align-block-over-batched-tokens]" in out
    assert "1 error" in out


def test_warnings_leave_the_status_at_0(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("--serve", f"vllm serve {model} {CRASH}", "--engine", "0.27.1") == 0
    assert "coarse-prefix-cache" in capsys.readouterr().out


def test_the_json_is_the_contract(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint("--serve", f"vllm serve {model} {CRASH}", "--engine", "0.26.0", "--format", "json") == 1
    content = json.loads(capsys.readouterr().out)
    assert content["schema"] == "sparkops.lint/1"
    assert content["findings"][0]["id"] == "align-block-over-batched-tokens"
    for found in content["findings"]:
        assert set(found) == KEYS
        assert found["severity"] in ("error", "warning", "info")
        assert found["engine"] == "0.26.0"


def test_the_line_comes_from_standard_input(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"vllm serve {model} \\\n {CRASH}\n"))
    assert lint("--serve", "-", "--engine", "0.26.0") == 1
    assert "4176" in capsys.readouterr().out


def test_gpus_and_variables_are_heeded(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"vllm serve {model} -tp 2 --max-model-len 300000"
    assert lint("--serve", line, "--engine", "0.33.0") == 1
    allowed = ["--gpus", "2", "--env", "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1"]
    assert lint("--serve", line, "--engine", "0.33.0", *allowed) == 0
    capsys.readouterr()


def test_sarif_has_rules_and_results_that_point_at_each_other(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lint("--serve", f"vllm serve {model} {CRASH}", "--engine", "0.26.0", "--format", "sarif")
    content = json.loads(capsys.readouterr().out)
    ran = content["runs"][0]
    assert content["version"] == "2.1.0"
    for result in ran["results"]:
        assert ran["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning", "note")


def test_annotations_are_one_line_each(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lint("--serve", f"vllm serve {model} {CRASH}", "--engine", "0.26.0", "--format", "github")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::error title=align-block-over-batched-tokens::")
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--serve", "vllm serve M"], "--engine"),
        (["--serve", "vllm serve 'M", "--engine", "0.33.0"], "balanced quotes"),
        (["--serve", "vllm serve M", "--engine", "newest"], "like 0.26.0"),
    ],
)
def test_wrong_use_has_status_1_and_a_way_out(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lint(*words) == 1
    assert hint in capsys.readouterr().err
