"""Commands as cron, CI and containers start them: streams closed or full, no HOME, any locale."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
INVENTORY = str(ROOT / "inventories" / "one-spark.yml")
COMMANDS = {
    "version": ["--version"],
    "help": ["--help"],
    "explain": ["explain", "host-key-unknown"],
    "lint": ["lint", INVENTORY],
}
STREAMS = ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "> /dev/full 2> /dev/full"]


def run(arguments: list[str], redirection: str = "", **environment: str | None) -> subprocess.CompletedProcess[str]:
    """One command below a shell; an environment value of None removes the variable."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-m", "sparkops", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        env={name: value for name, value in values.items() if value is not None},
        check=False,
    )


@pytest.mark.parametrize("redirection", STREAMS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_or_full_stream_is_no_defect(name: str, redirection: str) -> None:
    done = run(COMMANDS[name], redirection)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    full = "> /dev/full" in redirection and not redirection.startswith("2>")
    assert done.returncode == (74 if full else 0)
    if full and "2>" not in redirection:
        assert "standard output: No space left on device" in done.stderr


@pytest.mark.parametrize("home", [None, "", "relative", "/proc", "/nonexistent"])
def test_a_home_that_is_none_is_no_defect(home: str | None, tmp_path: Path) -> None:
    done = run(COMMANDS["lint"], HOME=home, XDG_STATE_HOME=None, XDG_CACHE_HOME=None)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


def test_a_state_folder_that_cannot_be_written_is_named_before_anything_is_done(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("version: 1\ncluster: attic\nnodes: {here: {host: 127.0.0.1}}\n")
    done = run(["apply", str(inventory), "--yes"], HOME="/proc", XDG_STATE_HOME=None)
    assert done.returncode == 74
    assert "error[state-folder-unusable]" in done.stderr
    assert "/proc/.local/state/sparkops" in done.stderr
    assert "XDG_STATE_HOME" in done.stderr


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "no_such"])
def test_text_is_utf_8_in_any_locale(locale: str, tmp_path: Path) -> None:
    folder = tmp_path / "Gerät"
    folder.mkdir()
    (folder / "inventory.yml").write_text("version: 1\ncluster: Büro\nnodes: {}\n", encoding="utf-8")
    done = run(["lint", str(folder / "inventory.yml")], LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert "Traceback" not in done.stderr
    assert "Gerät" in done.stdout + done.stderr
