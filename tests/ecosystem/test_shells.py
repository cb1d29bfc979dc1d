"""The completion scripts in real shells: what TAB makes of a line is what the shell then runs."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(sparkops completion bash)", "PS1='READ''Y> '"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u; source <(sparkops completion zsh)",
        "PS1='READ''Y> '",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "sparkops completion fish | source",
        "function fish_prompt; echo -n READ''Y'> '; end",
    ),
}
LINES = [
    ("sparkops resta\t qw\t", "restart qwen"),
    ("sparkops start qw\t", "start qwen"),
    ("sparkops render spark-0\t --form\t js\t", "render spark-02 --format json"),
    ("sparkops apply -i other.yml --limit else\t", "apply -i other.yml --limit elsewhere"),
    ("sparkops status -i other.yml else\t", "status -i other.yml elsewhere"),
]


class Terminal:
    """A shell that a person types into."""

    def __init__(self, argv: list[str], folder: Path) -> None:
        environment = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder)}
        self.said = ""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(argv[0], argv, environment)

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def wait(self, text: str, seconds: float = 30) -> None:
        """Until the shell has said this once more."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert time.monotonic() < deadline, f"no {text!r} in {self.said!r}"
            if select.select([self.file], [], [], 1)[0]:
                self.said += os.read(self.file, 65536).decode(errors="replace")
        self.said = self.said.partition(text)[2]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.file)


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_options_and_names_of_the_inventory(shell: str, tmp_path: Path) -> None:
    argv, loading, prompt = SHELLS[shell]
    if not shutil.which(argv[0]):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "inventory.yml").write_text("nodes: {spark-02: , bastion: }\nservices: {qwen: {nodes: [spark-02]}}\n")
    (tmp_path / "other.yml").write_text("nodes: {elsewhere: }\n")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "sparkops"
    program.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{ROOT}"\n'
        f'[ -n "$_SPARKOPS_COMPLETE" ] || [ "$1" = completion ] || {{ echo "RAN: $*"; exit; }}\n'
        f'exec "{sys.executable}" -m sparkops "$@"\n'
    )
    program.chmod(0o755)
    terminal = Terminal(argv, tmp_path)
    try:
        terminal.type(f"{prompt}\n")
        terminal.wait("READY> ")
        terminal.type(f"{loading}; echo LOAD''ED\n")
        terminal.wait("LOADED")
        terminal.wait("READY> ")
        for line, meant in LINES:
            terminal.type(f"{line}\n")
            terminal.wait(f"RAN: {meant}")
            terminal.wait("READY> ")
    finally:
        terminal.end()
