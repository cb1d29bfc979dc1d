"""The command line as a user runs it: a process of its own, an inventory in a folder, the lab's SSH configuration."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab


@dataclass
class Shell:
    """A folder with an inventory, and `sparkops` to run in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        """A file in the folder; the text's common indentation is dropped."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, asked: bool = False
    ) -> subprocess.Popen[str]:
        """`sparkops` started, not waited for; Ctrl-C reaches it also where the tests were told to ignore it.

        As from a timer `apply` has `--yes`, unless it is to be `asked`.
        """
        agreed = {"--yes", "--plan"} & {*arguments}
        yes = ["--yes"] if arguments[:1] == ("apply",) and not asked and not agreed else []
        return subprocess.Popen(
            [sys.executable, "-m", "sparkops", *arguments, *yes],
            cwd=self.folder,
            env={**os.environ, **self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(
        self,
        *arguments: str,
        status: int | None = 0,
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
        asked: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """`sparkops` run to its end; its exit status must be `status`, unless that is None."""
        process = self.start(*arguments, environment=environment, asked=asked)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"no end within {timeout} s:\n{out}\n{err}") from None
        if status is not None:
            assert process.returncode == status, f"exit status {process.returncode}:\n{out}\n{err}"
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def told(self, process: subprocess.Popen[str], event: str = "StepProgress") -> list[dict[str, Any]]:
        """The events of that sort of the apply of this process so far."""
        runs = [each["run"] for each in self.json("history", "--runs")["runs"]]
        names = [each for each in runs if each.endswith(f"-apply-{process.pid}")]
        lines = [line for name in names for line in self.run("report", name, "--events").stdout.splitlines()]
        return [found for line in lines if (found := json.loads(line))["event"] == event]

    def json(self, *arguments: str, status: int | None = 0, **more: Any) -> dict[str, Any]:
        """The JSON report of a command."""
        done = self.run(*arguments, "--format", "json", status=status, **more)
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found


def until(true: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 120) -> Any:
    """What `true` answers once that is true; fails after so many seconds, or where `process` has ended meanwhile."""
    deadline = time.monotonic() + seconds
    while not (answer := true()):
        assert process is None or process.poll() is None, f"the command ended: {process and process.communicate()}"
        assert time.monotonic() < deadline, f"it did not come about within {seconds:.0f} s"
        time.sleep(0.1)
    return answer


@contextmanager
def at_work(process: subprocess.Popen[str]) -> Iterator[None]:
    """A command that stays where it is while the block runs, as on a machine that has no time for it."""
    process.send_signal(signal.SIGSTOP)
    assert process.poll() is None, f"the command ended: {process.communicate()}"
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.fixture
def shell(lab: Lab, tmp_path: Path) -> Shell:
    """An empty folder, and sparkops that finds the lab's nodes by their names."""
    return shell_in(lab, tmp_path)


def shell_in(lab: Lab, tmp_path: Path) -> Shell:
    """The same below a given folder."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    return Shell(
        folder,
        {
            "SPARKOPS_SSH_CONFIG": str(lab.ssh_config),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "NO_COLOR": "1",
        },
    )
