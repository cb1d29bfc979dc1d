"""Benchmarks of others: stand-ins on the PATH that take their real words and leave JSON in their real form."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from sparkops.cli.app import cli
from sparkops.importing import Choice, convert
from sparkops.operate.measuring.bench import Cell
from sparkops.operate.measuring.tools import TOOLS, Run
from tests.errors import fails

BENCHY = {
    "version": "0.4.0",
    "model": "org/name",
    "max_concurrency": 4,
    "benchmarks": [
        {
            "concurrency": streams,
            "context_size": 0,
            "prompt_size": 512,
            "response_size": 128,
            "is_context_prefill_phase": False,
            "tg_throughput": {"mean": 30.0 * streams, "std": 1.0, "values": [30.0]},
            "tg_req_throughput": {"mean": 30.0, "std": 1.0, "values": [30.0]},
            "ttfr": {"mean": 250.0, "std": 1.0, "values": [250.0]},
        }
        for streams in (1, 4)
    ],
}
AIPERF = {
    "time_to_first_token": {"unit": "ms", "avg": 240.0, "p50": 250.0},
    "inter_token_latency": {"unit": "ms", "avg": 26.0, "p50": 25.0},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 38.0},
}
VLLM = {"median_ttft_ms": 250.0, "median_tpot_ms": 25.0, "output_throughput": 38.0, "completed": 3}


class Desk:
    """An inventory, and a folder on the PATH for stand-ins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.setenv("SPARKOPS_SSH_CONFIG", "/dev/null")

    def declare(self, more: str = "", nodes: str = "replicas: [[a], [b]]") -> None:
        (self.folder / "inventory.yml").write_text(
            "version: 1\ncluster: rack\nvars: {fabric: {subnet: 192.168.100.0/24, topology: pair}}\n"
            "nodes: {a: {host: 192.0.2.1}, b: {host: 192.0.2.2}}\n"
            f"services:\n  qwen: {{{nodes}, image: {{pull: 'vllm/vllm-openai:v0.33.0'}}, "
            f"checkpoint: {{repository: org/name}}{more}}}\n"
        )

    def program(self, name: str, flag: str, result: str, told: object, status: int = 0) -> None:
        """One that leaves `told` in `result` below (or at) the path behind `flag`, and notes its words and key."""
        path = self.folder / "bin" / name
        text = told if isinstance(told, str) else json.dumps(told)
        path.write_text(
            f"#!{sys.executable}\nimport os, sys, pathlib\nwords = sys.argv[1:]\n"
            f"noted = pathlib.Path({str(self.folder / 'noted')!r})\n"
            f"noted.open('a').write(' '.join([*words, 'key=' + os.environ.get('TOOL_EVAL_API_KEY', '')]) + '\\n')\n"
            f"at = pathlib.Path(words[words.index({flag!r}) + 1]) / {result!r}\n"
            f"at.parent.mkdir(parents=True, exist_ok=True)\nat.write_text({text!r})\nprint('its own table')\n"
            f"sys.exit({status})\n"
        )
        path.chmod(0o755)

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, ["bench", "qwen", "-i", str(self.folder / "inventory.yml"), *words])

    @property
    def noted(self) -> list[str]:
        return (self.folder / "noted").read_text().splitlines()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_llama_benchy_measures_every_engine_and_its_json_is_kept(desk: Desk) -> None:
    desk.declare()
    desk.program("llama-benchy", "--save-result", "", BENCHY)
    words = ("--with", "llama-benchy", "--context", "512", "--format", "json")

    result = desk.run(*words)

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [each["node"] for each in found["engines"]] == ["a", "b"]
    assert [each.split()[1] for each in desk.noted] == ["http://192.0.2.1:8000/v1", "http://192.0.2.2:8000/v1"]
    cell = found["engines"][0]["cells"][1]
    assert (cell["concurrency"], cell["context"], cell["first_token_seconds"]) == (4, 512, 0.25)
    assert (cell["decode_tokens_per_second"], cell["all_tokens_per_second"]) == (30.0, 120.0)
    assert found["engines"][0]["told"] == [BENCHY]

    slower = json.loads(json.dumps(BENCHY).replace("30.0", "20.0"))
    desk.program("llama-benchy", "--save-result", "", slower)
    result = desk.run(*words)
    found = json.loads(result.stdout)
    told = {each["id"] for engine in found["engines"] for each in engine["findings"]}
    assert (found["exit_status"], told) == (2, {"bench-slower-than-before"})


def test_aiperf_is_called_for_each_cell(desk: Desk) -> None:
    desk.declare(nodes="nodes: [a]")
    desk.program("aiperf", "--output-artifact-dir", "profile_export_aiperf.json", AIPERF)

    result = desk.run("--with", "aiperf", "--concurrency", "1,4", "--context", "512", "--format", "json")

    assert result.exit_code == 0, result.output
    cells = json.loads(result.stdout)["engines"][0]["cells"]
    assert [each["decode_tokens_per_second"] for each in cells] == [40.0, 40.0]
    assert all("profile --url http://192.0.2.1:8000 " in each for each in desk.noted) and len(desk.noted) == 2


def test_a_key_goes_by_the_environment_or_not_at_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.declare(", environment: {VLLM_API_KEY: !env SPARKS_KEY}", nodes="nodes: [a]")
    monkeypatch.setenv("SPARKS_KEY", "sk-secret")
    desk.program("tool-eval-bench", "--json-file", "", {"scores": {"final_score": 88}})
    result = desk.run("--with", "tool-eval-bench", "--format", "json")
    assert result.exit_code == 0, result.output
    (noted,) = desk.noted
    assert noted.endswith("key=sk-secret") and noted.count("sk-secret") == 1
    assert "sk-secret" not in result.output
    desk.program("llama-benchy", "--save-result", "", BENCHY)
    failed(desk.run("--with", "llama-benchy"), "bench-tool-takes-no-key")


def failed(result: Result, id: str) -> None:
    assert isinstance(result.exception, BaseException)
    with fails(id):
        raise result.exception


@pytest.mark.parametrize(
    ("program", "more", "id"),
    [
        (None, "", "bench-tool-missing"),
        (lambda desk: desk.program("aiperf", "--output-artifact-dir", "x", {}, 3), "", "bench-tool-failed"),
        (lambda desk: desk.program("aiperf", "--output-artifact-dir", "x", {}), "", "bench-tool-told-nothing"),
        (
            lambda desk: desk.program("aiperf", "--output-artifact-dir", "profile_export_aiperf.json", "[1"),
            "",
            "bench-tool-told-nothing",
        ),
        (
            lambda desk: desk.program("aiperf", "--output-artifact-dir", "x", {}),
            ", vars: {service: {host: 127.0.0.1}}",
            "bench-tool-kept-out",
        ),
        (
            lambda desk: desk.program("aiperf", "--output-artifact-dir", "x", {}),
            ", command: [other-engine]",
            "bench-model-unnamed",
        ),
    ],
)
def test_what_keeps_a_tool_from_measuring_is_said(
    desk: Desk, program: Callable[[Desk], None] | None, more: str, id: str
) -> None:
    desk.declare(more, nodes="nodes: [a]")
    if program is not None:
        program(desk)
    failed(desk.run("--with", "aiperf"), id)


def test_a_submission_to_spark_arena_has_its_three_files(desk: Desk) -> None:
    line = ", serve: {max-model-len: 4096, speculative-config: {method: mtp, num_speculative_tokens: 1}}"
    desk.declare(f"{line}, environment: {{VLLM_LOGGING_LEVEL: INFO}}", nodes="nodes: [a]")
    desk.program("llama-benchy", "--save-result", "", "model,test_name\norg/name,pp2048\n")

    result = desk.run("--export", "spark-arena", str(desk.folder / "out"))

    assert result.exit_code == 0, result.output
    assert [Path(each).name for each in result.stdout.split()] == ["recipe.yaml", "benchmark.csv", "metadata.json"]
    assert "--depth 0 4096 8192 16384 32768 65535 100000 --concurrency 1 2 5 10" in desk.noted[0]
    assert (desk.folder / "out/benchmark.csv").read_text().startswith("model,test_name")
    told = json.loads((desk.folder / "out/metadata.json").read_text())
    assert told["benchmark"]["profile"] == "@official/spark-arena-v2" and told["recipe"]["hf_model"] == "org/name"
    assert "192.0.2.1" not in json.dumps(told) and told["timing"]["duration"] >= 0
    text = (desk.folder / "out/recipe.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert recipe["command"].startswith("vllm serve {model} ") and recipe["env"] == {"VLLM_LOGGING_LEVEL": "INFO"}
    made = yaml.safe_load(convert(text, "recipe.yaml", Choice()).text)["variables"]
    assert made["service"]["serve"]["max-model-len"] == 4096
    assert made["service"]["serve"]["speculative-config"] == {"method": "mtp", "num_speculative_tokens": 1}


def test_spark_arena_takes_no_engine_of_several_nodes_without_ray(desk: Desk) -> None:
    desk.declare(", serve: {tensor-parallel-size: 2}", nodes="nodes: [a, b]")
    desk.program("llama-benchy", "--save-result", "", "x")
    failed(desk.run("--export", "spark-arena", str(desk.folder / "out")), "bench-arena-several-nodes")
    assert not (desk.folder / "out").exists()


ANY = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["mean", "p50", "avg"]), inner),
    max_leaves=4,
)
KEYS = sorted({*BENCHY["benchmarks"][0], *AIPERF, *VLLM, "benchmarks"})  # type: ignore[index]


@pytest.mark.parametrize("name", [each for each in TOOLS if each != "tool-eval-bench"])
@given(told=st.dictionaries(st.sampled_from(KEYS), ANY | st.lists(st.dictionaries(st.sampled_from(KEYS), ANY))))
def test_whatever_a_tool_leaves_gives_cells_with_numbers_or_none(name: str, told: dict[str, Any]) -> None:
    cells: Sequence[Cell] = list(TOOLS[name].cells(told, Run([], "", Cell(concurrency=1, context=512))))
    for cell in cells:
        assert all(value is None or value >= 0 or value < 0 for value in (cell.first, cell.decode, cell.together))


def test_vllm_s_own_benchmark_is_read_as_the_others() -> None:
    (cell,) = TOOLS["vllm-bench"].cells(VLLM, Run([], "", Cell(concurrency=1, context=512)))
    assert (cell.first, cell.decode, cell.together) == (0.25, 40.0, 38.0)
