"""TAB: names of the inventory that the command line names, in every command that takes such names."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from sparkops.cli.app import cli
from sparkops.cli.inventory_argument import NAMED
from tests.unit.cli.test_inventory_argument import READERS

INVENTORY = """\
version: 1
cluster: c
nodes: {spark-01: {host: 192.0.2.1}, spark-02: }
groups: {spare: {nodes: [spark-02]}}
services: {speech: {recipe: no-such-recipe, nodes: [spark-01]}}
"""
WORDS = {"nodes": {"spark-01", "spark-02"}, "groups": {"spare"}, "services": {"speech"}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yml").write_text(INVENTORY)
    (tmp_path / "other.yml").write_text("nodes: {elsewhere: }\n")
    return tmp_path


def completed(words: list[str], incomplete: str) -> set[str]:
    found = ShellComplete(cli, {}, "sparkops", "_SPARKOPS_COMPLETE").get_completions(words, incomplete)
    return {each.value for each in found if each.type == "plain"}


COMMANDS = [
    (name, parameter)
    for name, command in READERS
    for parameter in command.params
    if parameter.name in ("node", "nodes", "service", "services", "names", "limit")
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("name", "parameter"), COMMANDS, ids=[f"{name} {each.name}" for name, each in COMMANDS])
def test_every_command_completes_the_names_that_it_takes(name: str, parameter: click.Parameter) -> None:
    words = name.split()
    if isinstance(parameter, click.Option):
        words.append(parameter.opts[-1])
    elif parameter.name == "service" and name in ("render", "adopt"):
        words.append("spark-01")  # its first argument
    wanted = set().union(*(WORDS[key] for key in NAMED[parameter.name or ""]))
    assert completed(words, "sp") == wanted
    assert completed(words, "spark-02") == wanted & {"spark-02"}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("words", [["-i", "other.yml"], ["other.yml"], ["--inventory=other.yml"]])
def test_the_names_are_those_of_the_inventory_that_is_named(words: list[str]) -> None:
    assert completed(["status", *words], "") >= {"elsewhere"}
    assert completed(["status", *words], "sp") == set()


@pytest.mark.usefixtures("folder")
def test_exclusions_and_lists_are_completed_word_by_word() -> None:
    assert completed(["apply", "--limit"], "!spark") == {"!spark-01", "!spark-02"}
    assert completed(["apply", "--limit"], "spare,spark-01,!spe") == {"spare,spark-01,!speech"}


@pytest.mark.parametrize("text", ["", "nodes: [", "- a", "nodes: 3", "nodes: {a: !env}", "\x00"])
def test_an_inventory_that_is_broken_completes_nothing_and_says_nothing(
    folder: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "inventory.yml").write_text(text)
    assert completed(["status"], "sp") == set()
    (folder / "inventory.yml").unlink()
    assert completed(["status"], "sp") == set()
    assert capfd.readouterr() == ("", "")
