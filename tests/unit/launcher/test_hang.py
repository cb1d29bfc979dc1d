"""What is kept of an engine that hangs, of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkops.programs.launch import hang
from sparkops.programs.launch.node import keep

HANGING = """
import threading, time
def wait_for_a_peer(): time.sleep(60)
threading.Thread(target=wait_for_a_peer, daemon=True).start()
print("ready", flush=True)
wait_for_a_peer()
"""


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[str]]:
    """A Python process of two threads that wait, with the environment of an engine."""
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    argv = [sys.executable, "-c", HANGING]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_process_is_described_with_each_thread_and_where_it_waits(engine: subprocess.Popen[str]) -> None:
    text = hang.describe(engine.pid)
    assert text.startswith(f"process {engine.pid}: {sys.executable} -c")
    assert "State: " in text
    assert text.count("waits in") == 2


def test_a_process_that_has_ended_is_described_by_what_is_left(tmp_path: Path) -> None:
    assert hang.describe(7, str(tmp_path)) == "process 7: "


def test_a_stopped_engine_writes_the_stacks_of_its_threads_and_ends(engine: subprocess.Popen[str]) -> None:
    os.kill(engine.pid, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while "State: T (stopped)" not in hang.describe(engine.pid):
        assert time.monotonic() < deadline
    hang.dump_python_stacks([engine.pid])
    _, told = engine.communicate(timeout=60)
    assert told.count("hread 0x") == 2
    assert "in wait_for_a_peer" in told
    assert engine.returncode == -signal.SIGABRT


def test_what_is_kept_is_for_root_alone_and_replaces_what_was_kept(tmp_path: Path) -> None:
    folder = tmp_path / "services" / "qwen"
    keep(str(folder), "last-hang.txt", "older")
    path = keep(
        str(folder), "last-hang.txt", hang.report("qwen", "no token moves", ["process 7: x"], ["its last line"])
    )
    assert path == str(folder / "last-hang.txt")
    text = Path(path).read_text()
    assert [each in text for each in ("no token moves", "process 7: x", "its last line", "older")] == [True] * 3 + [
        False
    ]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [each.name for each in folder.iterdir()] == ["last-hang.txt"]


def test_what_cannot_be_kept_does_not_stop_the_end_of_the_engine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert keep(str(tmp_path / "file" / "below"), "x", "") == ""
    assert keep(None, "x", "") == ""
