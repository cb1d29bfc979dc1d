"""`sparkops recipe` as it is called."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sparkops.cli.app import run
from sparkops.inventory.recipes import recipe_files

OWN = """summary: mine
engine: "0.28.0"
variables:
  image: {pull: "a/b:1"}
  service: {serve: {max-num-seqs: 2, seed: 1}}
speeds:
  - {tokens_per_second: [10, 12.5], source: me}
  - {tokens_per_second: 99, streams: 8, source: me}
  - {tokens_per_second: 50, other: true, source: me}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yml").write_text(OWN)
    return tmp_path


def test_list_has_own_and_bundled_recipes_with_the_speed_of_one_stream(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recipe", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["RECIPE", "NODES", "ENGINE", "TOKENS/S"]
    assert next(line for line in lines if line.startswith("mine ")).split() == [
        "mine",
        "1",
        "0.28.0",
        "10–12.5",
        "mine",
    ]
    assert run(["recipe", "list", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "sparkops.recipes/1"
    assert {each["name"]: each["own"] for each in told["recipes"]} == {
        **dict.fromkeys(recipe_files(None), False),
        "mine": True,
    }


def test_show_prints_the_file_with_its_sources(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "show", "qwen3.5-122b-a10b-hybrid-legacy"]) == 0
    shown = capsys.readouterr().out
    assert "sources:" in shown and "unverified:" in shown and "albond/DGX_Spark" in shown
    assert run(["recipe", "show", "mine", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["name"], told["nodes"]) == ("sparkops.recipe/1", "mine", 1)
    assert told["variables"]["service"]["serve"] == {"max-num-seqs": 2, "seed": 1}


def test_diff_tells_each_leaf_and_takes_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = OWN.replace("seed: 1", "max-model-len: 4096").replace("max-num-seqs: 2", "max-num-seqs: 4")
    (folder / "other.yml").write_text(other.replace("summary: mine", "summary: another"))
    assert run(["recipe", "diff", "mine", "other.yml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "+ service.serve.max-model-len: 4096",
        "~ service.serve.max-num-seqs: 2 → 4",
        "- service.serve.seed: 1",
    ]
    assert run(["recipe", "diff", "mine", "mine", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == []


@pytest.mark.parametrize("word", ["nope", "nope.yml"])
def test_a_recipe_that_is_not_there_is_a_wrong_input(
    folder: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recipe", "show", word]) == 1
    assert "error[" in capsys.readouterr().err


def test_import_prints_or_writes_the_recipe_and_says_the_rest_on_standard_error(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "vllm serve acme/Wren-8B --max-model-len 4096 --frobnicate"
    monkeypatch.setattr("sys.stdin", io.StringIO(line))
    assert run(["recipe", "import", "-"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("summary: ") and "not carried over: --frobnicate" in told.err
    (folder / "line.txt").write_text(line)
    assert run(["recipe", "import", "line.txt", "--engine", "0.28.0", "-o", "recipes/wren.yml"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["recipe", "show", "wren", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"] == "0.28.0"


def test_import_of_what_is_no_text_is_a_wrong_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "x.bin").write_bytes(b"\xff\xfe\x00")
    assert run(["recipe", "import", "x.bin"]) == 1
    assert "not UTF-8" in capsys.readouterr().err
