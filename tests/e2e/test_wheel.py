"""The wheel carries its data folders: installed into an empty environment, it works away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sparkops` program of an environment that holds nothing but the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("sparkops-*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(wheel)], check=True)
    return python.with_name("sparkops")


def run(program: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_init_writes_can_be_rendered_by_the_installed_program(installed: Path, tmp_path: Path) -> None:
    run(installed, tmp_path, "init")
    shown = run(installed, tmp_path, "render", "spark-01", "qwen")
    assert "vllm" in shown
    assert "Type=notify" in shown
    assert '"title": "sparkops inventory"' in run(installed, tmp_path, "schema")


def test_the_installed_program_asks_this_very_machine(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "inventory.yml").write_text("version: 1\ncluster: here\nconnection: {type: local}\nnodes: {here: {}}\n")
    assert "machine" in run(installed, tmp_path, "facts", "--group", "os", "--format", "json")
