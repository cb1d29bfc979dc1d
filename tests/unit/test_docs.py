"""The written pages are what the data says, and the links in the documentation lead somewhere."""

import re
import shlex
import textwrap
from datetime import date
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from docs.generate import DOCS, PAGES
from sparkops import resources
from sparkops.cli.app import cli
from sparkops.compile.compiler import compile_inventory
from sparkops.inventory.load import load
from sparkops.lint.declared import lint_inventory
from sparkops.operate.checkpoint.build import steps_of
from sparkops.operate.render import render

ROOT = DOCS.parent


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run `make docs`"


WRITTEN = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "bench").glob("*.md")])


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(linked.read_text()), f"{page.name} links to {target}"


def anchors(text: str) -> list[str]:
    """The anchors that a page's headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return [re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings]


def test_every_test_that_a_page_names_is_there() -> None:
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", pages)
    assert len(named) > 40
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


def test_what_the_readme_shows_of_commands_is_what_they_say() -> None:
    shown = re.findall(r"^    \$ sparkops (.+)\n((?:    (?!\$).+\n)+)", (ROOT / "README.md").read_text(), re.M)
    assert len(shown) == 2
    for words, said in shown:
        output = CliRunner().invoke(cli, shlex.split(words)).output
        for line in said.splitlines():
            assert line.strip().rstrip("…").rstrip() in output


def blocks(text: str) -> list[str]:
    """The fenced and indented blocks of a page, without their indentation."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    indented = re.findall(r"(?:^    .*\n|^\n(?=    ))+", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return [textwrap.dedent(each).strip() + "\n" for each in (*fenced, *indented)]


def commands(text: str) -> list[list[str]]:
    """The words of each sparkops command that a page shows in a block."""
    lines = [line.removeprefix("$ ") for block in blocks(text) for line in block.splitlines()]
    words = [shlex.split(line.partition(" < ")[0], comments=True) for line in lines if line.startswith("sparkops ")]
    return [each[1:] for each in words]


def parsed(words: list[str]) -> click.Context:
    """The context of the command that `words` call; a usage error of click where they call none."""
    command: click.Command | None = cli
    context = None
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        name, *words = words
        command = command.get_command(context, name)
    assert command is not None, words
    return command.make_context(name, list(words))


PAGES_WITH_COMMANDS = [page for page in WRITTEN if commands(page.read_text())]


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    for words in commands(page.read_text()):
        parsed(words)


def test_the_builds_of_the_page_on_building_have_steps() -> None:
    builds = [each for each in commands((DOCS / "building.md").read_text()) if each[:2] == ["checkpoint", "build"]]
    assert len(builds) == 3
    for words in builds:
        given = parsed(words).params
        assert steps_of(given["steps"], given["layers"], given["recipe"])


INVENTORIES = [
    pytest.param(page, block, id=f"{page.name}-{number}")
    for page in WRITTEN
    for number, block in enumerate(each for each in blocks(page.read_text()) if "version: 1\ncluster:" in each)
]


@pytest.mark.parametrize(("page", "block"), INVENTORIES)
def test_an_inventory_of_a_page_compiles_and_has_no_lint_error(page: Path, block: str, tmp_path: Path) -> None:
    for other in blocks(page.read_text()):
        if named := re.match(r"# (\S+\.(?:yml|j2))\n", other):
            (tmp_path / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / named[1]).write_text(other)
    (tmp_path / "inventory.yml").write_text(block)
    inventory = load(tmp_path / "inventory.yml")
    kinds = [each.kind for each in compile_inventory(inventory).resources]
    assert ("built_checkpoint" in kinds) == (page.name == "building.md")
    assert [each for each in lint_inventory(inventory, date(2026, 11, 29)) if each.severity == "error"] == []


def test_the_second_spark_of_getting_started_is_the_second_rank(tmp_path: Path) -> None:
    (block,) = [
        each for each in blocks((DOCS / "getting-started.md").read_text()) if "spark-02" in each and "fabric" in each
    ]
    (tmp_path / "inventory.yml").write_text(block)
    shown = {each.title: each.text for each in render(load(tmp_path / "inventory.yml"), "spark-02", "qwen")}
    assert "--node-rank 1" in shown["arguments of qwen"]
    assert "--master-addr 192.168.100.10" in shown["arguments of qwen"]


def test_the_page_on_own_roles_lists_every_kind() -> None:
    page = (DOCS / "own-roles.md").read_text()
    assert [each for each in resources.names() if f"`{each}`" not in page] == []


@pytest.mark.parametrize("page", ["inventory.md", "kinds.md"])
def test_every_key_of_a_reference_has_a_meaning(page: str) -> None:
    rows = re.findall(r"^\| `(\S+)` \|.*\| (.*?) \|$", (DOCS / page).read_text(), re.M)
    assert len(rows) > 30
    assert [name for name, meaning in rows if meaning in ("", "required")] == []
