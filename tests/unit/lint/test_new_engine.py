"""An engine version is one YAML file: the invented ones of docs/engines.md, and rules that work by them."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from sparkops.cli.app import run
from sparkops.core.data import bundled
from sparkops.lint.case import case_of
from sparkops.lint.check import check
from sparkops.models.engine import engine, versions
from sparkops.models.invocation import of_text
from tests.errors import fails

MODEL = "Qwen/Qwen3.5-122B-A10B"


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder whose knowledge/ holds the versions of the page, and nothing else."""
    page = (Path(__file__).parents[3] / "docs" / "engines.md").read_text()
    (tmp_path / "knowledge" / "engines").mkdir(parents=True)
    for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        (tmp_path / "knowledge" / "engines" / f"{yaml.safe_load(text)['version']}.yml").write_text(text)
    return tmp_path


def ids(text: str, beside: Path, version: str = "9.0.0") -> list[str]:
    found = check(case_of(of_text(f"vllm serve {MODEL} {text}", version, beside=beside)))
    return [each.id for each in found if each.severity == "error"]


@pytest.mark.parametrize("version", ["9.0.0", "9.1.0"])
def test_the_page_s_versions_have_the_shape_of_the_schema(beside: Path, version: str) -> None:
    content = yaml.safe_load((beside / "knowledge" / "engines" / f"{version}.yml").read_text())
    jsonschema.validate(content, json.loads((bundled("knowledge") / "engine.schema.json").read_text()))


def test_a_page_of_differences_changes_only_what_it_names(beside: Path) -> None:
    old, new = engine("9.0.0", beside), engine("9.1.0", beside)
    assert set(new.flags) == set(old.flags) - {"node-rank"} | {"spec-tokens"}
    assert (new.flags["spec-tokens"], "node-rank" in new.defaults) == ("integer", False)
    assert new.tool_parsers == ("qwen3_coder", "qwen3_xml")
    assert new.behaviour == {**old.behaviour, "align_block_limit": False}
    assert (new.choices, new.attention, new.environment) == (old.choices, old.attention, old.environment)
    assert ids("--max-num-batched-tokens 2175", beside, "9.1.0") == []


def test_rules_go_by_its_names_and_its_laws(beside: Path) -> None:
    batch = "--max-num-batched-tokens"
    assert engine("9.0.0", beside).exact
    assert ids("--max-context 4096 --max-num-seqs 4 --no-enable-prefix-caching", beside) == []
    assert ids("--max-model-len 4096 --no-enable-prefix-caching", beside) == ["unknown-flag"]
    assert ids(f"{batch} 2175", beside) == ["align-block-over-batched-tokens"]
    assert ids(f"{batch} 2176", beside) == []
    assert ids(f"-tp 3 {batch} 8192", beside) == ["heads-not-divisible", "not-enough-gpus"]
    assert ids("--speculative-config.method eagle --no-enable-prefix-caching", beside) == [
        "speculative-method-unknown",
        "speculative-tokens-missing",
    ]


def test_a_later_unlisted_version_is_judged_by_it_but_for_words_that_it_may_know(beside: Path) -> None:
    assert versions(beside)[-1] == "9.1.0"
    assert ids("--max-model-len 4096 --no-enable-prefix-caching", beside, "9.1.4") == ["unknown-flag"]
    assert ids("--max-model-len 4096 --no-enable-prefix-caching", beside, "9.2.0") == []
    uneven = "-tp 3 --max-num-batched-tokens 8192"
    assert ids(uneven, beside, "9.2.0") == ids(uneven, beside, "9.1.0") != []


def test_the_command_finds_it_in_the_current_folder(
    beside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(beside)
    assert run(["lint", "--serve", f"vllm serve {MODEL} --max-model-len 4096", "--engine", "9.0.0"]) == 1
    assert "known up to 0.33.0" in capsys.readouterr().out


def test_a_file_that_lacks_a_law_is_named(beside: Path) -> None:
    file = beside / "knowledge" / "engines" / "9.0.0.yml"
    file.write_text(file.read_text().replace("  align_block_limit: true\n", ""))
    with fails("engine-law-missing"):
        ids("", beside)
