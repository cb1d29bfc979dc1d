"""The command line where nothing is connected to: help, errors with their place and the way out, what init writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from sparkops.cli.app import COMMANDS

GOOD = "version: 1\ncluster: x\nnodes: {spark-01: {host: 192.0.2.1}}\n"


def sparkops(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sparkops", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, tmp_path: Path) -> None:
    shown = sparkops(tmp_path, command, "--help")
    assert shown.returncode == 0
    if command != "inventory":
        assert "Examples:" in shown.stdout


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version: 1\ncluster: x\nnodes: {a: {hots: b}}\n", "inventory.yml:3", "host"),
        ("version: 1\ncluster: x\nnodes: {a: {}}\nnodes: {b: {}}\n", "inventory.yml:4", "twice"),
        ("version: 1\n  cluster: x\n", "inventory.yml:2", ""),
        (GOOD + "services: {q: {nodes: [spark-1], port: 8000}}\n", "inventory.yml:4", "spark-01"),
        (GOOD + "services: {q: {nodes: [spark-01], prot: 8000}}\n", "inventory.yml:4", "port"),
    ],
)
def test_a_wrong_inventory_is_told_with_its_place_and_the_nearest_word(
    text: str, place: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "inventory.yml").write_text(text)
    done = sparkops(tmp_path, "plan")
    assert done.returncode == 1
    assert place in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_inventory_is_told(tmp_path: Path) -> None:
    done = sparkops(tmp_path, "plan", "nowhere.yml")
    assert done.returncode == 1
    assert "nowhere.yml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_or_option_is_a_usage_error(tmp_path: Path) -> None:
    assert "did you mean apply" in sparkops(tmp_path, "aply").stderr
    assert sparkops(tmp_path, "plan", "--lmit", "x").returncode == 1


def test_init_writes_an_inventory_that_its_own_schema_accepts(tmp_path: Path) -> None:
    assert sparkops(tmp_path, "init").returncode == 0
    text = (tmp_path / "inventory.yml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./inventory.schema.json")
    schema = json.loads((tmp_path / "inventory.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(text), schema)
    assert sparkops(tmp_path, "inventory", "show", "spark-01", "--service", "qwen", "--origin").returncode == 0
    again = sparkops(tmp_path, "init")
    assert again.returncode == 1
    assert "exists already" in again.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, tmp_path: Path) -> None:
    assert "_SPARKOPS_COMPLETE" in sparkops(tmp_path, "completion", shell).stdout


def test_version_is_answered_without_the_command_line_library() -> None:
    probe = (
        "import sys; sys.argv = ['sparkops', '--version']\n"
        "from sparkops.__main__ import main; main(); print('click' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_secrets_are_not_read_by_what_works_offline(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text(
        GOOD + "services:\n  q:\n    nodes: [spark-01]\n    port: 8000\n    image: {pull: 'a/b:c'}\n    model: m\n"
        "    environment: {VLLM_API_KEY: !command [touch, ran]}\n"
    )
    done = sparkops(tmp_path, "render", "spark-01", "q")
    assert done.returncode == 0, done.stderr
    assert "***" in done.stdout
    assert "!command" in sparkops(tmp_path, "inventory", "show", "spark-01", "--service", "q").stdout
    assert not (tmp_path / "ran").exists()


def test_a_reader_that_goes_away_is_no_clean_bill_of_health(tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: here\nconnection: {type: local}\nnodes: {here: {}}\n")
    pipe = f"{sys.executable} -m sparkops plan -v --role driver 2>&1 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "141", done.stderr
