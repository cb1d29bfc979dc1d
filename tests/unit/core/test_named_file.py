"""Files that a user named on the command line: what is no plain file is never replaced by one, whoever writes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import sparkops
from sparkops.cli.app import cli
from sparkops.core import named_file

SOURCES = Path(sparkops.__file__).parent
OWN_FILES = {
    "checkpoints/hub.py",
    "cli/init.py",
    "inventory/lockfile.py",
    "nodes/session.py",
    "nodes/ssh/host_keys.py",
    "operate/cancel.py",
    "operate/measuring/bench.py",
    "watching/state.py",
}
"""Modules of the controller that write a file whose name and place are sparkops' own."""


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """A named pipe whose content somebody reads all the time."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = subprocess.Popen(["sh", "-c", 'exec 3<>"$0"; cat <&3 > "$0.read"', str(path)])
    yield path
    reader.kill()
    reader.wait()


def test_a_device_or_pipe_is_written_into_and_stays(pipe: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pipe)
    named_file.write(tmp_path / "link", b"one", private=True)
    assert pipe.is_fifo() and (tmp_path / "link").is_symlink()


def test_an_error_names_the_file_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        named_file.write(tmp_path / "no" / "x.json", "x")
    assert failed.value.filename == str(tmp_path / "no" / "x.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["schema -o", "recipe new Qwen/Qwen3-0.6B --offline -o"])
def test_commands_write_into_what_is_there(words: str, pipe: Path) -> None:
    CliRunner().invoke(cli, [*words.split(), str(pipe)])
    assert pipe.is_fifo()


def test_every_option_for_a_file_to_write_is_checked_before_a_node_is_asked() -> None:
    late = [
        f"{name} {option.opts[-1]}"
        for name, command in _commands(cli)
        for option in command.params
        if isinstance(option, click.Option)
        and re.match(r"(The archive|Save|Also draw|(Also )?[Ww]rite)\b", option.help or "")
        and isinstance(option.type, click.Path)
        and name != "init"  # it writes before anything else happens
    ]
    assert late == []


def test_only_one_function_writes_to_a_name_that_a_user_gave() -> None:
    others = [
        str(path.relative_to(SOURCES))
        for folder in ("cli", "operate", "reports", "watching", "inventory", "importing", "checkpoints", "nodes")
        for path in sorted((SOURCES / folder).rglob("*.py"))
        if re.search(r"write_text\(|write_bytes\(|atomic\.write\(|mkstemp\(|os\.replace\(", path.read_text())
    ]
    assert [each for each in others if each not in OWN_FILES] == []


def _commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(group, click.Group):
        context = click.Context(group)
        for each in group.list_commands(context):
            found = group.get_command(context, each)
            assert found is not None
            yield from _commands(found, f"{name} {each}".strip())
    else:
        yield name, group
