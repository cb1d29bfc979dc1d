"""One way to name the inventory: -i, or the file among the arguments, in every command that reads one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkops.cli.app import COMMANDS, cli
from sparkops.cli.inventory_argument import WithInventory
from sparkops.inventory.load import load
from tests.errors import fails

OWN = {"init", "explain", "schema", "completion", "recipe", "report"}
"""Commands that read no inventory, or whose arguments are files of another sort."""


def commands(name: str) -> Iterator[tuple[str, click.Command]]:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if isinstance(command, click.Group):
        yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())
    else:
        yield name, command


READERS = [
    (name, command)
    for word in COMMANDS
    if word not in OWN
    for name, command in commands(word)
    if name not in ("checkpoint inspect", "checkpoint build")
]


@pytest.mark.parametrize(("name", "command"), READERS, ids=[name for name, _ in READERS])
def test_every_command_takes_the_inventory_by_option_and_by_argument(name: str, command: click.Command) -> None:
    assert isinstance(command, WithInventory)
    needed = {
        "logs": ["q"],
        "bench": ["q"],
        "render": ["a"],
        "inventory show": ["a"],
        "inventory export": ["--format", "ansible"],
        "remove": ["q"],
        "rollback": ["q"],
    }.get(name, [])
    by_option = command.make_context(name, ["-i", "c.yml", *needed]).params
    by_argument = command.make_context(name, [*needed, "c.yml"]).params
    assert by_option == by_argument
    assert by_argument["inventory"] == Path("c.yml")
    with pytest.raises(click.UsageError, match="two inventories"):
        command.make_context(name, ["-i", "c.yml", *needed, "d.yml"])


ONE = {"lock", "adopt", "render", "inventory show", "inventory export", "remove", "rollback", "init", "discover"}
"""Commands that name their node or service, and those whose file is one for all: `lock`, `inventory export`."""


@pytest.mark.parametrize(("name", "command"), READERS, ids=[name for name, _ in READERS])
def test_every_command_that_works_on_many_nodes_takes_a_shard(name: str, command: click.Command) -> None:
    assert ("shard" in {each.name for each in command.params}) == (name not in ONE)


@given(st.lists(st.sampled_from(["--limit", "-e", "--jobs", "-v", "--no-color"]), max_size=4), st.integers(0, 8))
def test_a_value_of_an_option_is_never_taken_for_the_inventory(options: list[str], place: int) -> None:
    values = {"--limit": ["x.yml"], "-e": ["a.b=c.yml"], "--jobs": ["4"]}
    parts = [[word, *values.get(word, [])] for word in options]
    parts.insert(min(place, len(parts)), ["lab.yml"])
    ((_, command),) = commands("plan")
    found = command.make_context("plan", [word for part in parts for word in part]).params
    assert found["inventory"] == Path("lab.yml")
    assert set(found["limit"]) <= {"x.yml"}


def test_names_stay_names_and_the_words_of_a_program_are_its_own() -> None:
    ((_, status),) = commands("status")
    assert status.make_context("status", ["spark-01", "c.yaml", "qwen3.5"]).params["nodes"] == ("spark-01", "qwen3.5")
    ((_, execute),) = commands("exec")
    params = execute.make_context("exec", ["all", "--", "cat", "c.yml"]).params
    assert params["inventory"] == Path("inventory.yml") and params["nodes"] == ("all",)


def test_a_missing_inventory_names_those_that_are_there(tmp_path: Path) -> None:
    with fails("inventory-not-found"):
        load(tmp_path / "inventory.yml")
    for name in ("rack.yml", "rack.lock.yml"):
        (tmp_path / name).touch()
    (tmp_path / "inventory.yml").symlink_to("inventory.yml")
    with fails("inventory-not-found-others") as caught:
        load(tmp_path / "inventory.yml")
    assert "rack.yml" in str(caught.value) and "lock" not in str(caught.value)
    assert caught.value.args_by_name["there"] == [str(tmp_path / "rack.yml")], "not itself, a link to nowhere"
