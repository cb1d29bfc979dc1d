"""AIPerf and llama-benchy themselves measure the lab's engine, called by `sparkops bench --with`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sparkops.cli.app import cli
from tests.ecosystem.engines import free_port, lab_engine
from tests.lab import model
from tests.lab.hub import Hub

pytestmark = pytest.mark.slow
BOOK = "https://www.gutenberg.org/files/1661/1661-0.txt"
"""What llama-benchy takes its prompts from, unless its cache has it: the test asks no other machine."""


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An engine of this machine whose tokenizer a hub of this machine has."""
    model.write(tmp_path / "tiny")
    home = tmp_path / "home"
    cached = home / ".cache" / "llama-benchy" / f"{hashlib.md5(BOOK.encode()).hexdigest()}.txt"
    cached.parent.mkdir(parents=True)
    cached.write_text("A quick brown fox met a detective in London. " * 20000)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(Path(sys.prefix) / "benchmarks" / "bin"), prepend=":")
    port, path = free_port(), tmp_path / "inventory.yml"
    with Hub() as hub, lab_engine(tmp_path, "/model", port):
        hub.add_repo("lab/tiny", tmp_path / "tiny")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        path.write_text(
            "version: 1\ncluster: rack\nnodes: {a: {connection: local}}\nservices:\n  qwen:\n    nodes: [a]\n"
            f"    port: {port}\n    image: {{pull: 'vllm/vllm-openai:v0.33.0'}}\n    command: []\n"
            "    checkpoint: {repository: lab/tiny}\n"
        )
        yield path


@pytest.mark.parametrize("tool", ["aiperf", "llama-benchy"])
def test_a_benchmark_of_others_is_called_and_its_figures_are_read(inventory: Path, tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    words = ("--concurrency", "1,2", "--context", "128", "--tokens", "32", "--format", "json")
    result = CliRunner().invoke(cli, ["bench", "qwen", "-i", str(inventory), "--with", tool, *words])
    assert result.exit_code == 0, result.output
    cells = json.loads(result.stdout)["engines"][0]["cells"]
    assert [(each["concurrency"], each["context"]) for each in cells] == [(1, 128), (2, 128)]
    for each in cells:
        assert each["first_token_seconds"] >= 0
        assert each["decode_tokens_per_second"] > 0
